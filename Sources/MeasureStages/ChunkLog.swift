public import PipelineCore

/// Writes `chunks.csv`: one line for each copy of a chunk that came whole.
///
/// Columns, integers but for the source's name, times in nanoseconds since the run began, -1 where there is none:
/// `seq,t_ns,source,offset,length,requested_ns,first_byte_ns,done_ns,dup`. `dup` counts the chunk's bytes that this
/// source sent and that had come before.
public final class ChunkLog: Sink, Summarizing {
    public static let typeName = "chunk_log"

    public struct Options: StageOptions {
        /// The file, in the run's folder.
        public var file: String
        public init(from reader: inout OptionReader) { file = reader.read("file", default: "chunks.csv") }
    }

    public static func demands(of options: Options) -> StageDemands {
        var demands = StageDemands()
        demands.needsSources = true
        return demands
    }

    private let context: StageContext
    private let options: Options
    private let names: [String]
    private var file: LineFile?
    private var rowCount: Int64 = 0
    /// Bytes that came twice, by chunk and path, until the chunk is done.
    private var duplicates: [UInt64: [UInt16: UInt64]] = [:]

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
        names = context.sources.map { csvField($0.name) }
    }

    public func start(at now: Timestamp) throws(StageError) {
        guard let path = context.runFile(options.file) else { return }
        file = try LineFile(path, header: "seq,t_ns,source,offset,length,requested_ns,first_byte_ns,done_ns,dup")
    }

    public func consume(_ input: borrowing PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        let packets = input.descriptors
        for index in packets.indices {
            let packet = packets[index]
            switch packet.kind {
            case .data where packet.isDuplicate:
                duplicates[packet.sequence, default: [:]][packet.path, default: 0] += UInt64(packet.byteCount)
            case .done:
                let dup = duplicates.removeValue(forKey: packet.sequence)?[packet.path] ?? 0
                rowCount += 1
                file?.append(
                    "\(packet.sequence),\(now.nanoseconds),\(names[Int(packet.path)]),\(packet.objectOffset)"
                        + ",\(packet.byteCount),\(written(packet.departed)),\(written(packet.firstByte))"
                        + ",\(written(packet.arrived)),\(dup)"
                )
            case .data, .request, .hedge, .cancel, .retract: break
            }
        }
        file?.flush()
        return .whenFed
    }

    private func written(_ time: Timestamp) -> Int64 { time == .unset ? -1 : time.nanoseconds }

    public func finish(at now: Timestamp) throws(StageError) { try file?.finish() }

    public func summary() -> [(key: String, value: SummaryValue)] { [(key: "rows", value: .integer(rowCount))] }
}
