/// The 32 bytes that begin every datagram and every TCP frame of ours.
///
/// Network byte order. A TCP frame is this header and its payload, so a capture can find the next frame again.
///
/// | offset | bytes | field | |
/// | --- | --- | --- | --- |
/// | 0 | 2 | magic | `0x5442` ("TB") |
/// | 2 | 1 | version, type | version in the high four bits (1), ``WireType`` in the low four |
/// | 3 | 1 | flags | ``WireFlags`` |
/// | 4 | 4 | flow id | chosen at random by the client; one flow is one object at one server |
/// | 8 | 8 | sequence | of the flow and direction, from 0, one more for each datagram or frame |
/// | 16 | 8 | send time | nanoseconds of CLOCK_REALTIME |
/// | 24 | 6 | object offset | where the payload of a DATA belongs in the object; otherwise 0 |
/// | 30 | 2 | payload length | bytes that follow the header |
public struct WireHeader: Hashable, Sendable {
    public static let byteCount = 32
    public static let magic: UInt16 = 0x5442
    public static let version: UInt8 = 1

    public var type: WireType
    public var flags: WireFlags
    public var flow: UInt32
    public var sequence: UInt64
    public var sendTime: UInt64
    /// 48 bits.
    public var objectOffset: UInt64
    public var payloadByteCount: UInt16

    public init(
        _ type: WireType,
        flags: WireFlags = [],
        flow: UInt32,
        sequence: UInt64,
        sendTime: UInt64,
        objectOffset: UInt64 = 0,
        payloadByteCount: UInt16 = 0
    ) {
        self.type = type
        self.flags = flags
        self.flow = flow
        self.sequence = sequence
        self.sendTime = sendTime
        self.objectOffset = objectOffset
        self.payloadByteCount = payloadByteCount
    }

    /// Why 32 bytes are no header.
    public enum Fault: Error, Hashable, Sendable {
        /// Fewer than 32 bytes.
        case short
        /// Not our magic number, or another version.
        case foreign
        /// Ours, of a type that this version does not know. To be counted and passed over.
        case unknownType(payloadByteCount: UInt16)
    }

    /// Reads the header at `offset` of `bytes`.
    public static func read(_ bytes: RawSpan, at offset: Int = 0) throws(Fault) -> WireHeader {
        guard offset >= 0, bytes.byteCount - offset >= byteCount else { throw .short }
        func load<Value: FixedWidthInteger & BitwiseCopyable>(_ place: Int, _: Value.Type) -> Value {
            // In bounds: 32 bytes were checked above.
            Value(bigEndian: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset + place, as: Value.self))
        }
        guard load(0, UInt16.self) == magic else { throw .foreign }
        let kind = load(2, UInt8.self)
        guard kind >> 4 == version else { throw .foreign }
        let tail = load(24, UInt64.self)
        let payload = UInt16(truncatingIfNeeded: tail)
        guard let type = WireType(rawValue: kind & 0xF) else { throw .unknownType(payloadByteCount: payload) }
        return WireHeader(
            type,
            flags: WireFlags(rawValue: load(3, UInt8.self)),
            flow: load(4, UInt32.self),
            sequence: load(8, UInt64.self),
            sendTime: load(16, UInt64.self),
            objectOffset: tail >> 16,
            payloadByteCount: payload
        )
    }

    /// Writes the header's 32 bytes to the start of `bytes`.
    ///
    /// - Precondition: There is room for them.
    @unsafe
    public func store(into bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count >= Self.byteCount, "a header needs 32 bytes")
        unsafe bytes.storeBytes(of: Self.magic.bigEndian, toByteOffset: 0, as: UInt16.self)
        unsafe bytes.storeBytes(of: Self.version << 4 | type.rawValue, toByteOffset: 2, as: UInt8.self)
        unsafe bytes.storeBytes(of: flags.rawValue, toByteOffset: 3, as: UInt8.self)
        unsafe bytes.storeBytes(of: flow.bigEndian, toByteOffset: 4, as: UInt32.self)
        unsafe bytes.storeBytes(of: sequence.bigEndian, toByteOffset: 8, as: UInt64.self)
        unsafe bytes.storeBytes(of: sendTime.bigEndian, toByteOffset: 16, as: UInt64.self)
        let tail = objectOffset << 16 | UInt64(payloadByteCount)
        unsafe bytes.storeBytes(of: tail.bigEndian, toByteOffset: 24, as: UInt64.self)
    }

    /// Appends the header's 32 bytes.
    public func append(to bytes: inout [UInt8]) {
        bytes.appendInteger(Self.magic)
        bytes.appendInteger(Self.version << 4 | type.rawValue)
        bytes.appendInteger(flags.rawValue)
        bytes.appendInteger(flow)
        bytes.appendInteger(sequence)
        bytes.appendInteger(sendTime)
        bytes.appendInteger(objectOffset << 16 | UInt64(payloadByteCount))
    }
}

/// What a datagram or frame is.
public enum WireType: UInt8, Sendable, CaseIterable {
    /// Client: which object (`Hello`). Padded to 1,200 bytes on UDP.
    case hello = 0
    /// Server, UDP: a cookie that shows that the client's address is its own.
    case cookie = 1
    /// Server: what the object is (``Offer``).
    case offer = 2
    /// Client: ranges of it (``RangeRequest``).
    case request = 3
    /// Server: bytes of it, at the header's object offset.
    case data = 4
    /// Server: a request has been answered to its end (``RequestDone``).
    case done = 5
    /// Client: a request is not wanted any more (``RequestCancel``).
    case cancel = 6
    /// Digests of blocks: asked for (``BlocksRequest``), and answered with ``WireFlags/response`` (``BlocksAnswer``).
    case blocks = 7
    /// Server: what is wrong (``WireFailure``).
    case error = 8
    /// Either: up to 64 bytes that come back with ``WireFlags/response``.
    case ping = 9
    /// Either: an orderly end.
    case bye = 10
}

/// Bits of the header.
public struct WireFlags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// An answer, of a type that is used both ways.
    public static let response = WireFlags(rawValue: 1)
    /// The client will not check digests, so the server need not read the whole file for an offer.
    public static let noDigests = WireFlags(rawValue: 2)
}

extension [UInt8] {
    /// Appends an integer in network byte order.
    mutating func appendInteger<Value: FixedWidthInteger>(_ value: Value) {
        for shift in stride(from: Value.bitWidth - 8, through: 0, by: -8) {
            append(UInt8(truncatingIfNeeded: value >> Value(shift)))
        }
    }
}
