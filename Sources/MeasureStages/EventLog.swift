public import PipelineCore

/// Writes `events.jsonl`: what happened, few and typed, one JSON object a line with `t_ns` and `type` first.
///
/// Types: `source_<event>` for every ``SourceReport/Event``, `hedge`, `cancel`, `retry`, `stall_begin`, `stall_end`,
/// `playback_start`, `playback_end`, `object`, `clock`.
public final class EventLog: Observer {
    private let path: String
    private var file: LineFile?
    private var failure: StageError?
    private let pipeline: String
    private let sources: [String]
    private var state = PlaybackReport.State.startup
    private var lastTime = Timestamp.zero
    private var nextClock = Timestamp(nanoseconds: .min)
    private let clocks: () -> (monotonic: UInt64, realtime: UInt64)

    /// - Parameters:
    ///   - path: The file, made at the first event.
    ///   - clocks: Reads the machine's two clocks, for a `clock` event a second; zeros under virtual time.
    public init(
        _ path: String,
        pipeline: String,
        sources: [Source],
        clocks: @escaping () -> (monotonic: UInt64, realtime: UInt64)
    ) {
        self.path = path
        self.pipeline = pipeline
        self.sources = sources.map(\.name)
        self.clocks = clocks
    }

    public func observe(_ batch: borrowing PacketBatch, from first: Int, at tap: Tap, now: Timestamp) {
        lastTime = now
        guard now >= nextClock else { return }
        nextClock = Timestamp(nanoseconds: now.nanoseconds + 1_000_000_000)
        let (monotonic, realtime) = clocks()
        guard monotonic > 0 else { return }
        write(
            now,
            "clock",
            [
                (key: "monotonic_ns", value: .integer(Int64(clamping: monotonic))),
                (key: "realtime_ns", value: .integer(Int64(clamping: realtime))),
            ]
        )
    }

    public func observe(_ report: Report) {
        switch report {
        case .source(let report):
            var fields = [(key: "source", value: SummaryValue.text(name(report.path)))]
            if report.detail != 0 { fields.append((key: report.event.detailName, value: .integer(report.detail))) }
            write(report.time, report.event.typeName, fields)
        case .chunk(let report):
            let type: String? =
                switch report.step {
                case .hedged: "hedge"
                case .cancelled: "cancel"
                case .failed: "retry"
                case .assigned, .begun, .done: nil
                }
            guard let type else { return }
            write(
                report.time,
                type,
                [
                    (key: "chunk", value: .integer(Int64(clamping: report.chunk))),
                    (key: "source", value: .text(name(report.path))),
                ]
            )
        case .playback(let report): observe(report)
        case .object(let byteCount):
            write(lastTime, "object", [(key: "bytes", value: .integer(Int64(clamping: byteCount)))])
        case .verified: write(lastTime, "verified", [])
        case .path, .wanted, .sent: break
        }
    }

    private func observe(_ report: PlaybackReport) {
        guard report.state != state else { return }
        let type: String? =
            switch (state, report.state) {
            case (.startup, .playing): "playback_start"
            case (_, .stalled): "stall_begin"
            case (.stalled, .playing): "stall_end"
            case (_, .ended): "playback_end"
            default: nil
            }
        state = report.state
        guard let type else { return }
        write(report.time, type, [(key: "media_ns", value: .integer(report.playhead))])
    }

    private func name(_ path: UInt16) -> String { Int(path) < sources.count ? sources[Int(path)] : "\(path)" }

    private func write(_ time: Timestamp, _ type: String, _ fields: [(key: String, value: SummaryValue)]) {
        let head: [(key: String, value: SummaryValue)] = [
            (key: "t_ns", value: .integer(time.nanoseconds)), (key: "type", value: .text(type)),
            (key: "pipeline", value: .text(pipeline)),
        ]
        if file == nil, failure == nil {
            do throws(StageError) { file = try LineFile(path) } catch { failure = error }
        }
        file?.append(SummaryValue.object(head + fields).json)
        file?.flush()
    }

    public func finish(at now: Timestamp) throws(StageError) {
        if let failure { throw failure }
        try file?.finish()
    }
}

extension SourceReport.Event {
    /// The type of its event.
    var typeName: String {
        switch self {
        case .up: "source_up"
        case .refused: "source_refused"
        case .timedOut: "source_timed_out"
        case .closed: "source_closed"
        case .suspect: "source_suspect"
        case .recovered: "source_recovered"
        case .wrongBytes: "source_wrong_bytes"
        case .protocolViolation: "source_protocol_violation"
        case .noSuchObject: "source_no_such_object"
        case .differentObject: "source_different_object"
        case .abandoned: "source_abandoned"
        }
    }

    /// What the number that comes with it is.
    var detailName: String {
        switch self {
        case .refused, .closed: "errno"
        case .suspect: "age_ns"
        case .wrongBytes: "block"
        default: "detail"
        }
    }
}
