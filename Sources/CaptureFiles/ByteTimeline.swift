/// When each byte of something was first seen, and last: of a TCP stream, or of an object that came in pieces.
///
/// Runs of bytes that share their times, in order; a piece that continues the last costs O(1).
public struct ByteTimeline: Sendable {
    struct Run: Sendable {
        var begin: Int64
        var end: Int64
        var first: Int64
        var last: Int64
    }

    /// When a range of bytes was seen.
    public struct Times: Hashable, Sendable {
        /// When the first of them that came was first seen.
        public var first: Int64
        /// When the last of them was first seen: all had passed.
        public var last: Int64
        /// When the last transmission of any of them passed.
        public var lastTransmission: Int64

        public init(first: Int64, last: Int64, lastTransmission: Int64) {
            self.first = first
            self.last = last
            self.lastTransmission = lastTransmission
        }
    }

    private var runs: [Run] = []
    /// Pieces that were not taken in because there would have been too many runs.
    public private(set) var evictedCount = 0
    /// The most that are kept: 128 MiB of them.
    static let mostRuns = 1 << 22

    public init() {}

    /// Notes that bytes were seen.
    ///
    /// - Returns: How many of them had not been.
    @discardableResult
    public mutating func insert(_ range: Range<Int64>, at time: Int64) -> Int64 {
        guard !range.isEmpty else { return 0 }
        guard runs.count < Self.mostRuns else {
            evictedCount += 1
            return 0
        }
        let (begin, end) = (range.lowerBound, range.upperBound)
        guard let last = runs.last, begin < last.end else {
            runs.append(Run(begin: begin, end: end, first: time, last: time))
            return end - begin
        }
        let from = firstRun(endingAfter: begin)
        var (index, place) = (from, begin)
        var new: Int64 = 0
        var parts: [Run] = []
        while place < end {
            guard index < runs.count, runs[index].begin < end else {
                parts.append(Run(begin: place, end: end, first: time, last: time))
                new += end - place
                break
            }
            var run = runs[index]
            if run.begin > place {
                parts.append(Run(begin: place, end: run.begin, first: time, last: time))
                new += run.begin - place
                place = run.begin
            } else if run.begin < place {
                parts.append(Run(begin: run.begin, end: place, first: run.first, last: run.last))
                run.begin = place
            }
            let stop = min(run.end, end)
            parts.append(Run(begin: place, end: stop, first: min(run.first, time), last: max(run.last, time)))
            if stop < run.end { parts.append(Run(begin: stop, end: run.end, first: run.first, last: run.last)) }
            place = stop
            index += 1
        }
        runs.replaceSubrange(from..<index, with: parts)
        return new
    }

    /// Adds what another has seen.
    public mutating func merge(_ other: ByteTimeline) {
        evictedCount += other.evictedCount
        for run in other.runs {
            insert(run.begin..<run.end, at: run.first)
            if run.last != run.first { insert(run.begin..<run.end, at: run.last) }
        }
    }

    /// When the bytes of a range were seen; `nil` if some of them never were.
    public func times(of range: Range<Int64>) -> Times? {
        guard !range.isEmpty else { return nil }
        var index = firstRun(endingAfter: range.lowerBound)
        var place = range.lowerBound
        var times = Times(first: .max, last: .min, lastTransmission: .min)
        while place < range.upperBound {
            guard index < runs.count, runs[index].begin <= place else { return nil }
            times.first = min(times.first, runs[index].first)
            times.last = max(times.last, runs[index].first)
            times.lastTransmission = max(times.lastTransmission, runs[index].last)
            place = runs[index].end
            index += 1
        }
        return times
    }

    /// When the first byte of a range was first seen, whichever it was; `nil` if none was.
    public func first(in range: Range<Int64>) -> Int64? {
        var index = firstRun(endingAfter: range.lowerBound)
        var first: Int64?
        while index < runs.count, runs[index].begin < range.upperBound {
            first = min(first ?? .max, runs[index].first)
            index += 1
        }
        return first
    }

    /// How many bytes of a range were seen.
    public func count(in range: Range<Int64>) -> Int64 {
        var index = firstRun(endingAfter: range.lowerBound)
        var count: Int64 = 0
        while index < runs.count, runs[index].begin < range.upperBound {
            count += min(runs[index].end, range.upperBound) - max(runs[index].begin, range.lowerBound)
            index += 1
        }
        return count
    }

    /// For each end of a piece, in order: when all bytes before it had been seen; `nil` from the first hole on.
    public func inOrderTimes(of ends: [Int64]) -> [Int64?] {
        var results: [Int64?] = []
        var (index, frontier, latest) = (0, Int64(0), Int64.min)
        for end in ends {
            while frontier < end, index < runs.count, runs[index].begin <= frontier {
                latest = max(latest, runs[index].first)
                frontier = max(frontier, runs[index].end)
                index += 1
            }
            results.append(frontier >= end && latest != .min ? latest : nil)
        }
        return results
    }

    private func firstRun(endingAfter offset: Int64) -> Int {
        var (low, high) = (0, runs.count)
        while low < high {
            let middle = (low + high) / 2
            if runs[middle].end > offset { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
