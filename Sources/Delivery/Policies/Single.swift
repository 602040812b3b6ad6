public import PipelineCore

/// All chunks from one source: the baseline.
public struct Single: ChunkPolicy {
    public static let typeName = "single"

    public struct Options: StageOptions {
        /// The source's name; the first if it is empty.
        public var source: String
        /// Requests outstanding at once (q).
        public var outstanding: Int

        public init(from reader: inout OptionReader) {
            source = reader.read("source", default: "")
            outstanding = reader.read("outstanding", default: 2, in: 1...64)
        }
    }

    private let path: Int
    private let depth: Int

    public init(options: Options, sources: [Source]) {
        path = sources.firstIndex { $0.name == options.source } ?? 0
        depth = options.outstanding
    }

    public static func problems(of options: Options, with sources: [Source]) -> [String] {
        if options.source.isEmpty || sources.contains(where: { $0.name == options.source }) { return [] }
        return ["no source is called '\(options.source)'; known: \(sources.map(\.name).joined(separator: ", "))"]
    }

    public mutating func next(_ view: BoardView, at now: Timestamp) -> PolicyChoice {
        guard !view.waiting.isEmpty, view.paths[path].isUsable,
            view.paths[path].outstandingRequestCount < depth
        else { return .wait(until: nil) }
        return .assign(waiting: 0, path: path)
    }
}
