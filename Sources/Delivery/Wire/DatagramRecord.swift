/// A record of a datagram log: numbers that follow each other, sent or received together.
///
/// The file is little-endian: a header of 16 bytes (magic, side, bytes of a record), then records of 40 bytes: flow (4),
/// length of each datagram (2) and of the last (2), how many (2), 0 (2), drop counter (4), first sequence (8), and two times
/// in nanoseconds of CLOCK_REALTIME (8 each): before and after the call that sent them, or the kernel's stamp and when the
/// application had them.
public struct DatagramRecord: Hashable, Sendable {
    public enum Side: UInt32, Sendable {
        case sent = 1
        case received = 2
    }
    public static let magic: UInt64 = 0x314D_4152_4754_4254
    public static let headerByteCount = 16
    public static let byteCount = 40

    public var flow: UInt32
    public var length: UInt16
    public var lastLength: UInt16
    public var count: UInt16
    public var dropped: UInt32 = 0
    public var sequence: UInt64
    public var first: Int64 = 0
    public var second: Int64 = 0

    /// Finds the runs in a datagram or super-packet, by its headers; what has none of ours is passed over.
    ///
    /// - Parameter segment: Bytes of each datagram; the last may be shorter.
    public static func runs(of bytes: RawSpan, segment: Int, each: (DatagramRecord) -> Void) {
        guard segment > 0 else { return }
        var offset = 0
        var open: DatagramRecord?
        while offset < bytes.byteCount {
            let length = min(segment, bytes.byteCount - offset)
            defer { offset += length }
            guard let header = try? WireHeader.read(bytes, at: offset), header.type == .data else { continue }
            if var run = open, run.flow == header.flow, run.sequence &+ UInt64(run.count) == header.sequence,
                run.lastLength == run.length, run.count < .max
            {
                run.count += 1
                run.lastLength = UInt16(clamping: length)
                open = run
                continue
            }
            if let run = open { each(run) }
            let size = UInt16(clamping: length)
            open = DatagramRecord(
                flow: header.flow,
                length: size,
                lastLength: size,
                count: 1,
                sequence: header.sequence
            )
        }
        if let run = open { each(run) }
    }

    /// Reads a log.
    ///
    /// - Returns: Its side and records, and what is wrong with it; records before that are good.
    public static func read(_ bytes: RawSpan, each: (Side, DatagramRecord) -> Void) -> String? {
        // Nothing was logged.
        guard bytes.byteCount > 0 else { return nil }
        func load<Value: FixedWidthInteger & BitwiseCopyable>(_ offset: Int) -> Value {
            // In bounds: whole records only.
            Value(littleEndian: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: Value.self))
        }
        guard bytes.byteCount >= headerByteCount, load(0) == magic, let side = Side(rawValue: load(8)) else {
            return "byte 0: no datagram log"
        }
        guard load(12) == UInt32(byteCount) else {
            return "byte 12: records of \(load(12) as UInt32) bytes; expected \(byteCount)"
        }
        var offset = headerByteCount
        while bytes.byteCount - offset >= byteCount {
            let (length, count): (UInt16, UInt16) = (load(offset + 4), load(offset + 8))
            // No super-packet holds more: a record is no order to make room.
            guard Int(count) * max(32, Int(length)) <= 65_535 + Int(length) else {
                return "byte \(offset): a record of \(count) datagrams of \(length) bytes"
            }
            each(
                side,
                DatagramRecord(
                    flow: load(offset),
                    length: length,
                    lastLength: load(offset + 6),
                    count: count,
                    dropped: load(offset + 12),
                    sequence: load(offset + 16),
                    first: load(offset + 24),
                    second: load(offset + 32)
                )
            )
            offset += byteCount
        }
        return offset == bytes.byteCount
            ? nil : "byte \(offset): a record has \(bytes.byteCount - offset) of \(byteCount) bytes"
    }
}
