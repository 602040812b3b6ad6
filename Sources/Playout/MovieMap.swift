/// How much of a movie can be played when its first so many bytes are there.
///
/// Units: bytes of the object, nanoseconds of media time. Made by an MP4's index or from a constant bit rate.
public struct MovieMap: Sendable {
    /// From `end` bytes on, media up to `media` can be played.
    public struct Step: Hashable, Sendable {
        public var end: UInt64
        public var media: Int64
        public init(end: UInt64, media: Int64) {
            self.end = end
            self.media = media
        }
    }

    private enum Rule: Sendable {
        /// Ascending in both.
        case steps([Step])
        /// Media time of n bytes is `n × 8 ÷ rate`, of whole units only.
        case constant(bitsPerSecond: UInt64, unit: UInt64)
    }

    /// Bytes of the object.
    public let byteCount: UInt64
    /// Media time of the whole movie.
    public let duration: Int64
    private let rule: Rule

    /// A map of steps, ascending in both; they are put in order if they are not.
    public init(steps: [Step], byteCount: UInt64, duration: Int64) {
        self.byteCount = byteCount
        self.duration = duration
        var ordered: [Step] = []
        for step in steps.sorted(by: { ($0.end, $0.media) < ($1.end, $1.media) }) {
            guard let last = ordered.last else {
                ordered.append(step)
                continue
            }
            guard step.media > last.media else { continue }
            if step.end == last.end { ordered.removeLast() }
            ordered.append(step)
        }
        rule = .steps(ordered)
    }

    private init(rule: Rule, byteCount: UInt64, duration: Int64) {
        self.rule = rule
        self.byteCount = byteCount
        self.duration = duration
    }

    /// Any file at a constant bit rate, playable in whole units of so many bytes; the last unit may be short.
    ///
    /// Times are computed from totals and rounded to the nearest nanosecond.
    ///
    /// - Precondition: `bitsPerSecond` and `unit` are positive.
    public static func constantBitRate(byteCount: UInt64, bitsPerSecond: UInt64, unit: UInt64 = 1) -> MovieMap {
        precondition(bitsPerSecond > 0 && unit > 0, "a bit rate and a unit are positive")
        return MovieMap(
            rule: .constant(bitsPerSecond: bitsPerSecond, unit: unit),
            byteCount: byteCount,
            duration: mediaTime(of: byteCount, at: bitsPerSecond)
        )
    }

    /// A guess for a file whose map is not known: its size over its duration.
    public static func constantBitRate(byteCount: UInt64, duration: Int64) -> MovieMap {
        let rate = Double(byteCount) * 8e9 / Double(max(duration, 1))
        return constantBitRate(byteCount: byteCount, bitsPerSecond: UInt64(min(max(rate.rounded(), 1), 1e15)))
    }

    /// The average rate in bits a second.
    public var averageBitRate: Double { duration > 0 ? Double(byteCount) * 8e9 / Double(duration) : 0 }

    /// Media time that can be played with bytes `0..<prefix` there.
    public func playable(prefix: UInt64) -> Int64 {
        if prefix >= byteCount { return duration }
        switch rule {
        case .constant(let rate, let unit): return Self.mediaTime(of: prefix / unit * unit, at: rate)
        case .steps(let steps):
            var (low, high) = (0, steps.count)
            while low < high {
                let middle = (low + high) / 2
                if steps[middle].end <= prefix { low = middle + 1 } else { high = middle }
            }
            return low == 0 ? 0 : steps[low - 1].media
        }
    }

    /// The fewest bytes from the start with which media up to `media` can be played.
    public func bytesNeeded(for media: Int64) -> UInt64 {
        guard media > 0 else { return 0 }
        guard media < duration else { return byteCount }
        switch rule {
        case .constant(let rate, let unit):
            var (low, high) = (UInt64(0), (byteCount + unit - 1) / unit)
            while low < high {
                let middle = (low + high) / 2
                if Self.mediaTime(of: middle * unit, at: rate) < media { low = middle + 1 } else { high = middle }
            }
            return min(low * unit, byteCount)
        case .steps(let steps):
            var (low, high) = (0, steps.count)
            while low < high {
                let middle = (low + high) / 2
                if steps[middle].media < media { low = middle + 1 } else { high = middle }
            }
            return low < steps.count ? steps[low].end : byteCount
        }
    }

    /// `byteCount × 8 s ÷ rate`, to the nearest nanosecond; 292 years at most.
    private static func mediaTime(of byteCount: UInt64, at rate: UInt64) -> Int64 {
        let (high, low) = byteCount.multipliedFullWidth(by: 8_000_000_000)
        guard high < rate else { return .max }
        let (quotient, remainder) = rate.dividingFullWidth((high, low))
        return Int64(clamping: quotient &+ (remainder >= rate - remainder && remainder > 0 ? 1 : 0))
    }
}
