public import PipelineCore

/// Each chunk by the path that will have delivered it first (EDPF; Chebrolu and Rao, 2006): bytes arrive in order.
///
/// For the next chunk and every path, `E = max(now, free) + latency + bytes ÷ rate`, where `free` is when the path will
/// have delivered what it has been asked for and what is planned for it; the least wins (the first of equals, within a
/// microsecond). A chunk may so be planned for a fast path that is busy; it waits there while later chunks go by an
/// idle one. The plan is made anew whenever something changes, so an estimate that moves is obeyed at once.
///
/// A path whose rate nobody knows yet gets one chunk to find out.
public struct EarliestDelivery: ChunkPolicy {
    public static let typeName = "earliest_delivery"

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
        let usable = view.paths.indices.filter { view.paths[$0].isUsable }
        guard !usable.isEmpty, !view.waiting.isEmpty,
            usable.contains(where: { view.paths[$0].outstandingRequestCount < depth })
        else { return .wait(until: nil) }
        if let unknown = usable.first(where: {
            view.paths[$0].rate == nil && view.paths[$0].outstandingRequestCount == 0
        }) {
            return .assign(waiting: 0, path: unknown)
        }
        var drained = view.paths.map { max($0.drained, now) }
        // Planning further than every path can be busy with finds nothing to send.
        for (index, chunk) in view.waiting.enumerated() {
            var best: (path: Int, arrival: Timestamp)?
            for path in usable {
                guard
                    let arrival = view.expectedArrival(
                        of: chunk.request.byteCount,
                        by: path,
                        drained: drained[path],
                        depth: depth,
                        at: now
                    )
                else { continue }
                if let known = best, arrival.nanoseconds > known.arrival.nanoseconds - 1_000 { continue }
                best = (path, arrival)
            }
            guard let best else { return .wait(until: nil) }
            if view.paths[best.path].outstandingRequestCount < depth { return .assign(waiting: index, path: best.path) }
            drained[best.path] = best.arrival
        }
        return .wait(until: nil)
    }
}
