import Delivery
public import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Writes which datagrams of a rate test passed, and when: what a tap on the wire is compared with.
///
/// Behind `udp_send` it logs what was sent, with the times before and after the call; behind `udp_receive` what was
/// received, with the kernel's stamp, the time at which the application had it, and the socket's drop counter. Numbers are
/// read from the headers. Datagrams that follow each other in one super-packet share a record.
public final class DatagramLog: ConfiguredObserver {
    public static let typeName = "datagram_log"

    public struct Options: StageOptions {
        /// The file, in the run's folder; empty for `datagrams-PIPELINE.log`.
        public var file: String
        public init(from reader: inout OptionReader) { file = reader.read("file", default: "") }
    }

    private let options: Options
    private let context: StageContext
    private var file: BinaryFile?
    private var origin: Int64 = 0
    private var side = DatagramRecord.Side.sent
    private var hasHeader = false

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
    }

    public func start(at now: Timestamp) throws(StageError) {
        let name = options.file.isEmpty ? "datagrams-\(context.pipeline).log" : options.file
        guard let path = context.runFile(name) else { return }
        file = try BinaryFile(path)
        origin = WallClock.of(context.shared).origin(now: now, wall: Self.realtime())
    }

    private static func realtime() -> UInt64 {
        var time = timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    public func observe(_ batch: borrowing PacketBatch, from first: Int, at tap: Tap, now: Timestamp) {
        guard let file else { return }
        let packets = batch.descriptors
        var after: Int64 = 0
        for index in first..<packets.count where packets[index].kind == .data {
            let packet = packets[index]
            // Neither sent nor received: it is between two stages of the same program.
            guard packet.departed != .unset || packet.arrived != .unset else { continue }
            if !hasHeader { writeHeader(isSent: packet.departed != .unset) }
            let (one, two): (Int64, Int64)
            switch side {
            case .sent:
                guard packet.departed != .unset else { continue }
                // Read once a batch: all of it went in one call, which has returned.
                if after == 0 { after = Int64(bitPattern: Self.realtime()) }
                (one, two) = (packet.departed.nanoseconds &+ origin, after)
            case .received:
                guard packet.arrived != .unset else { continue }
                (one, two) = (packet.arrived.nanoseconds &+ origin, packet.captured.nanoseconds &+ origin)
            }
            let bytes = batch.payload(at: index)
            let segment = packet.segment == 0 ? bytes.byteCount : Int(packet.segment)
            DatagramRecord.runs(of: bytes, segment: segment) { run in
                file.reserve(DatagramRecord.byteCount)
                file.append(run.flow)
                file.append(run.length)
                file.append(run.lastLength)
                file.append(run.count)
                file.append(0 as UInt16)
                file.append(packet.dropped)
                file.append(run.sequence)
                file.append(one)
                file.append(two)
            }
        }
    }

    private func writeHeader(isSent: Bool) {
        hasHeader = true
        side = isSent ? .sent : .received
        file?.reserve(DatagramRecord.headerByteCount)
        file?.append(DatagramRecord.magic)
        file?.append(side.rawValue)
        file?.append(UInt32(DatagramRecord.byteCount))
    }

    public func finish(at now: Timestamp) throws(StageError) { try file?.finish() }
}
