import MeasureStages
public import PipelineCore
import Playout

/// Plays the movie as a player would, on the bytes that come: start-up, stalls and why, quality.
///
/// A sink with reports, not a holder: bytes pass to the other sinks at the speed of the network while the model plays at
/// its own. Writes `buffer.csv` (`t_ns,contiguous_bytes,playable_ns,played_ns,state`), one line for each change.
public final class PlayoutSink: Sink, Learner, Reporter, Summarizing {
    public static let typeName = "playout"

    public struct Options: StageOptions {
        /// Whose thresholds are used unless they are given.
        public var preset: PlayerPresetOption
        /// Media before play begins; zero for anything.
        public var start: Duration?
        /// Media ahead that ends a stall; zero for anything.
        public var resume: Duration?
        /// Media ahead above which no more is asked for.
        public var maximumBuffer: Duration?
        /// The movie's constant bit rate, instead of its MP4 index.
        public var bitRate: BitRate?
        /// With `bitrate`: playable in whole units of so many bytes.
        public var unit: ByteCount
        /// A local copy of the movie whose MP4 index is used; for paths that carry no bytes.
        public var file: String?
        /// How long the movie is taken to be while its index is not known.
        public var assumedDuration: Duration

        public init(from reader: inout OptionReader) {
            preset = reader.read("preset", default: .media3)
            start = reader.optional("start")
            resume = reader.optional("resume")
            maximumBuffer = reader.optional("max_buffer")
            bitRate = reader.optional("bitrate")
            unit = reader.read("unit", default: ByteCount(1), in: ByteCount(1)...ByteCount(1 << 40))
            file = reader.optional("file")
            assumedDuration = reader.read(
                "assumed_duration",
                default: .seconds(60),
                in: .milliseconds(1)...(.seconds(86_400 * 7))
            )
            if bitRate != nil, file != nil { reader.reject("file", "give one of 'bitrate' and 'file'") }
        }

        var player: PlayoutModel.Options {
            func nanoseconds(_ duration: Duration) -> Int64 { Timestamp.zero.advanced(by: duration).nanoseconds }
            var options = preset.preset.options
            if let start { options.start = nanoseconds(start) }
            if let resume { options.resume = nanoseconds(resume) }
            if let maximumBuffer { options.maximumBuffer = nanoseconds(maximumBuffer) }
            return options
        }
    }

    public static func demands(of options: Options) -> StageDemands {
        var demands = StageDemands()
        demands.needsSources = true
        demands.needsBytes = options.bitRate == nil && options.file == nil
        return demands
    }

    private let options: Options
    private let context: StageContext
    private var session: PlayoutSession
    private var bufferLog: LineFile?
    private var reports: [Report] = []
    private var lastReported: PlaybackReport?
    private var nextTick = Timestamp.zero

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
        session = PlayoutSession(
            player: options.player,
            map: options.bitRate.map { .constantBitRate($0, unit: options.unit.bytes) } ?? .index,
            assumedDuration: Timestamp.zero.advanced(by: options.assumedDuration).nanoseconds,
            sourceCount: context.sources.count,
            blockByteCount: options.preset.preset.blockByteCount
        )
    }

    public func start(at now: Timestamp) throws(StageError) {
        if let path = context.runFile("buffer.csv") {
            bufferLog = try LineFile(path, header: "t_ns,contiguous_bytes,playable_ns,played_ns,state")
        }
        if let file = options.file { session.setMap(try MovieFile.map(of: context.resolve(file))) }
    }

    public func consume(_ input: borrowing PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        let before = session.changeCount
        do {
            let packets = input.descriptors
            for index in packets.indices {
                switch packets[index].kind {
                case .data:
                    session.receive(packets[index], bytes: input.payload(at: index), at: now)
                case .done: session.finishChunk(packets[index])
                case .retract: session.retract(packets[index], at: now)
                case .request, .hedge, .cancel: break
                }
            }
        }
        session.advance(to: now)
        if let offset = session.takeWantedOffset() { reports.append(.wanted(objectOffset: offset)) }
        if session.changeCount != before || now >= nextTick { publish(at: now) }
        guard !session.isFinished, let change = session.model.nextChange else { return .whenFed }
        return .at(max(min(change, nextTick), Timestamp(nanoseconds: now.nanoseconds + 1)))
    }

    /// Logs and reports where the player is.
    private func publish(at now: Timestamp) {
        nextTick = Timestamp(nanoseconds: now.nanoseconds + 100_000_000)
        for transition in session.takeNewTransitions() {
            let state: PlaybackReport.State =
                switch transition.kind {
                case .started, .resumed: .playing
                case .stalled: .stalled
                case .ended: .ended
                }
            log(transition.time, transition.media, state)
            // Each change is a report of its own, at its own time, so that logs have them all.
            reports.append(
                .playback(session.report(state: state, at: transition.time, playhead: transition.media, now: now))
            )
        }
        let report = session.report(at: now)
        log(now, report.playhead, report.state)
        guard
            report.playhead != lastReported?.playhead || report.state != lastReported?.state
                || report.wantsMore != lastReported?.wantsMore || report.bufferLevel != lastReported?.bufferLevel
        else { return }
        lastReported = report
        reports.append(.playback(report))
    }

    private func log(_ time: Timestamp, _ playhead: Int64, _ state: PlaybackReport.State) {
        guard let bufferLog else { return }
        bufferLog.append(
            "\(time.nanoseconds),\(session.received.contiguousEnd),\(session.playable),\(playhead),\(state)"
        )
        bufferLog.flush()
    }

    public func learn(_ report: Report) { session.learn(report) }
    public func nextReport() -> Report? { reports.isEmpty ? nil : reports.removeFirst() }

    public func finish(at now: Timestamp) throws(StageError) {
        session.end(at: now)
        publishEnd()
        try bufferLog?.finish()
    }

    private func publishEnd() {
        for transition in session.takeNewTransitions() where transition.kind == .ended {
            log(transition.time, transition.media, .ended)
            reports.append(
                .playback(
                    session.report(state: .ended, at: transition.time, playhead: transition.media, now: transition.time)
                )
            )
        }
    }

    public func summary() -> [(key: String, value: SummaryValue)] {
        session.summary(sourceNames: context.sources.map(\.name))
    }
}

/// ``PlayerPreset`` as an option; `Playout` itself knows nothing of configuration files.
public struct PlayerPresetOption: OptionValue {
    let preset: PlayerPreset
    public static let media3 = PlayerPresetOption(preset: .media3)
    public static var shape: String { PlayerPreset.shape }
    public var written: String { preset.rawValue }
    public static func read(_ text: String) -> Result<PlayerPresetOption, OptionMismatch> {
        PlayerPreset.read(text).map(PlayerPresetOption.init)
    }
}
