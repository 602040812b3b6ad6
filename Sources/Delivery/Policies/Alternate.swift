public import PipelineCore

/// Chunk k from source k mod N, as the 2013 programs did it.
///
/// In lock-step, chunk k + 1 is asked for only when chunk k is complete: the rate is the harmonic mean of the sources'.
/// Independently, each source has a queue of its own: the rate is N times the slowest source's.
public struct Alternate: ChunkPolicy {
    public static let typeName = "alternate"

    /// How the sources wait for each other.
    public enum Mode: String, OptionChoice {
        case lockStep = "lock_step"
        case independent
    }

    public struct Options: StageOptions {
        public var mode: Mode
        /// Requests outstanding at once at each source (q), when independent.
        public var outstanding: Int
        /// Pause between the end of a chunk and the next request: of the run in lock-step, else of each source.
        public var delay: Duration

        public init(from reader: inout OptionReader) {
            mode = reader.read("mode", default: .independent)
            outstanding = reader.read("outstanding", default: 2, in: 1...64)
            delay = reader.read("delay", default: .zero)
        }
    }

    private let mode: Mode
    private let depth: Int
    private let delay: Int64
    private let sourceCount: Int

    public init(options: Options, sources: [Source]) {
        mode = options.mode
        depth = options.mode == .lockStep ? 1 : options.outstanding
        delay = Timestamp.zero.advanced(by: options.delay).nanoseconds
        sourceCount = sources.count
    }

    public mutating func prefer(_ chunk: PacketDescriptor) -> Int? { Int(chunk.sequence % UInt64(sourceCount)) }

    public mutating func next(_ view: BoardView, at now: Timestamp) -> PolicyChoice {
        guard !view.waiting.isEmpty else { return .wait(until: nil) }
        switch mode {
        case .lockStep:
            guard !view.isAnythingOutstanding else { return .wait(until: nil) }
            let lastDone = view.paths.map(\.lastDone).max() ?? .unset
            if let pause = pause(after: lastDone, at: now) { return .wait(until: pause) }
            guard let path = view.usable(from: view.waiting[0].preferred ?? 0) else { return .wait(until: nil) }
            return .assign(waiting: 0, path: path)
        case .independent:
            var earliest: Timestamp?
            let choice = view.nextPreferred(depth: depth) { path in
                guard let pause = pause(after: view.paths[path].lastDone, at: now) else { return true }
                earliest = min(earliest ?? pause, pause)
                return false
            }
            if case .wait = choice { return .wait(until: earliest) }
            return choice
        }
    }

    /// When the pause that follows `done` ends, if it has not ended at `now`.
    private func pause(after done: Timestamp, at now: Timestamp) -> Timestamp? {
        guard delay > 0, done != .unset else { return nil }
        let end = Timestamp(nanoseconds: done.nanoseconds + delay)
        return end > now ? end : nil
    }
}
