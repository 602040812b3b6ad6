public import PipelineCore

/// Smooth weighted round robin: each source gets chunks in proportion to its weight, spread as evenly as can be.
///
/// For each chunk every source's credit grows by its weight, the one with most credit gets the chunk (the first of
/// equals) and pays the sum of all weights. With `renew`, the weights are the measured rates, taken anew that often.
public struct Weighted: ChunkPolicy {
    public static let typeName = "weighted"

    public struct Options: StageOptions {
        /// Requests outstanding at once at each source (q).
        public var outstanding: Int
        /// How often measured rates replace the weights; never by default: then the sources' `weight` counts.
        public var renew: Duration?

        public init(from reader: inout OptionReader) {
            outstanding = reader.read("outstanding", default: 2, in: 1...64)
            renew = reader.optional("renew")
        }
    }

    private let depth: Int
    private let period: Int64?
    private var weights: [Double]
    private var credits: [Double]
    private var renewed = Timestamp.zero

    public init(options: Options, sources: [Source]) {
        depth = options.outstanding
        period = options.renew.map { Timestamp.zero.advanced(by: $0).nanoseconds }
        weights = sources.map { Double($0.weight) }
        credits = Array(repeating: 0, count: sources.count)
    }

    public mutating func prefer(_ chunk: PacketDescriptor) -> Int? {
        var best = 0
        var sum = 0.0
        for path in weights.indices {
            credits[path] += weights[path]
            sum += weights[path]
            if credits[path] > credits[best] { best = path }
        }
        credits[best] -= sum
        return best
    }

    public mutating func next(_ view: BoardView, at now: Timestamp) -> PolicyChoice {
        if let period, now.nanoseconds - renewed.nanoseconds >= period {
            let rates = view.paths.map { $0.rate ?? 0 }
            if rates.allSatisfy({ $0 > 0 }) {
                weights = rates
                renewed = now
            }
        }
        return view.nextPreferred(depth: depth)
    }
}
