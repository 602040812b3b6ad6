public import PipelineCore

/// Greedy: whichever source has fewer than q requests outstanding gets the first chunk that nobody has been asked for.
///
/// The rate is the sum of the sources'. With q of 2 or more the next request is on its way while the last is answered,
/// which hides latency. (DMP-streaming's server-side queue, turned round; work stealing.)
public struct Pull: ChunkPolicy {
    public static let typeName = "pull"

    public struct Options: StageOptions {
        /// Requests outstanding at once at each source (q).
        public var outstanding: Int

        public init(from reader: inout OptionReader) {
            outstanding = reader.read("outstanding", default: 2, in: 1...64)
        }
    }

    private let depth: Int

    public init(options: Options, sources: [Source]) { depth = options.outstanding }

    public mutating func next(_ view: BoardView, at now: Timestamp) -> PolicyChoice {
        guard !view.waiting.isEmpty else { return .wait(until: nil) }
        // The idlest first, the first of equals.
        let candidates = view.paths.indices.filter {
            view.paths[$0].isUsable && view.paths[$0].outstandingRequestCount < depth
        }
        let path = candidates.min {
            view.paths[$0].outstandingRequestCount < view.paths[$1].outstandingRequestCount
        }
        guard let path else { return .wait(until: nil) }
        return .assign(waiting: 0, path: path)
    }
}
