public import PipelineCore

/// Counts what comes and drops it.
public final class NullSink: Sink, Summarizing {
    public static let typeName = "null"

    public struct Options: StageOptions {
        public init(from reader: inout OptionReader) {}
    }

    private var packetCount: Int64 = 0
    private var byteCount: UInt64 = 0

    public init(options: Options, context: StageContext) {}

    public func consume(_ input: borrowing PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        let packets = input.descriptors
        for index in packets.indices where packets[index].kind == .data {
            packetCount += 1
            byteCount += UInt64(packets[index].byteCount)
        }
        return .whenFed
    }

    public func summary() -> [(key: String, value: SummaryValue)] {
        [(key: "packets", value: .integer(packetCount)), (key: "bytes", value: .integer(Int64(clamping: byteCount)))]
    }
}
