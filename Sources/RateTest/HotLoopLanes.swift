import MeasureStages
import NetworkStages
public import PipelineCore
import PipelineRuntime

/// `generator` → the headers of `udp_send` → `flow_stats`, in one lane and without a socket: what our own code costs.
public struct HotLoopLanes {
    private let size: Int
    private let segments: Int

    public init(size: Int, segments: Int) {
        self.size = size
        self.segments = segments
    }

    /// Runs so many datagrams through.
    ///
    /// - Returns: How many were counted as received.
    public func run(datagrams: Int) throws(StageError) -> Int64 {
        let pool = PacketPool(slotCount: 128, slotByteCount: size * segments, isTouched: true)
        let context = StageContext(name: "loop/generator")
        let generator = Generator(
            options: Generator.Options(size: size, segments: segments, flow: 1, batch: 64),
            context: context
        )
        var reader = OptionReader.describing()
        var options = FlowStats.Options(from: &reader)
        options.only = 1
        let progress = PublishedCount()
        options.progress = progress
        let stats = FlowStats(options: options, context: context)
        try generator.start(at: .zero)
        try stats.start(at: .zero)
        var batch = PacketBatch(capacity: 64, pool: pool)
        var now = Timestamp.zero
        var done = 0
        while done < datagrams {
            _ = try generator.capture(into: &batch, at: now)
            done += UDPSend.writeHeaders(batch, at: now)
            now = Timestamp(nanoseconds: now.nanoseconds + 10_000)
            _ = try stats.consume(batch, at: now)
            batch.removeAll()
        }
        try stats.finish(at: now)
        return progress.value
    }
}
