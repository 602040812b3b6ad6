public import PipelineCore

/// Writes a line for every packet that passes: on one edge with `after`, on every edge without.
///
/// Columns, times in nanoseconds since the run began, -1 where there is none:
/// `t_ns,after,kind,seq,path,stream,offset,length,captured_ns,departed_ns,arrived_ns`.
public final class PacketLog: ConfiguredObserver {
    public static let typeName = "packet_log"

    public struct Options: StageOptions {
        /// The file, in the run's folder.
        public var file: String
        public init(from reader: inout OptionReader) { file = reader.read("file", default: "packets.csv") }
    }

    private let options: Options
    private let context: StageContext
    private var file: LineFile?

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
    }

    public func start(at now: Timestamp) throws(StageError) {
        guard let path = context.runFile(options.file) else { return }
        file = try LineFile(
            path,
            header: "t_ns,after,kind,seq,path,stream,offset,length,captured_ns,departed_ns,arrived_ns"
        )
    }

    public func observe(_ batch: borrowing PacketBatch, from first: Int, at tap: Tap, now: Timestamp) {
        guard let file else { return }
        let packets = batch.descriptors
        for index in first..<packets.count {
            let packet = packets[index]
            let times = [packet.captured, packet.departed, packet.arrived].map { $0 == .unset ? -1 : $0.nanoseconds }
            file.append(
                "\(now.nanoseconds),\(csvField(tap.after)),\(packet.kind),\(packet.sequence),\(packet.path)"
                    + ",\(packet.stream),\(packet.objectOffset),\(packet.byteCount),\(times[0]),\(times[1]),\(times[2])"
            )
        }
        file.flush()
    }

    public func finish(at now: Timestamp) throws(StageError) { try file?.finish() }
}
