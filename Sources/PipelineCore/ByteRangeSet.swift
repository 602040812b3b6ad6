/// A set of byte offsets, kept as sorted ranges that neither overlap nor touch.
///
/// What has arrived of an object. Nearly all insertions extend the last range or the first hole, so the search begins
/// there; others cost a binary search and the move of the ranges behind. Memory: one range per hole.
public struct ByteRangeSet: Sendable, Equatable {
    /// The ranges, ascending.
    public private(set) var ranges: [Range<UInt64>] = []
    /// How many bytes are in the set.
    public private(set) var byteCount: UInt64 = 0

    public init() {}

    /// The end of the run of bytes that begins at 0; 0 if byte 0 is not there.
    public var contiguousEnd: UInt64 {
        guard let first = ranges.first, first.lowerBound == 0 else { return 0 }
        return first.upperBound
    }

    /// Bytes that are there but lie behind a hole.
    public var byteCountBehindHole: UInt64 { byteCount - contiguousEnd }

    /// Adds a range.
    ///
    /// - Returns: How many of its bytes were not there before.
    @discardableResult
    public mutating func insert(_ range: Range<UInt64>) -> UInt64 {
        guard !range.isEmpty else { return 0 }
        // The ranges that overlap or touch it are [first, last).
        let first = firstIndex(endingAtOrAfter: range.lowerBound)
        var last = first
        var merged = range
        var known: UInt64 = 0
        while last < ranges.count, ranges[last].lowerBound <= range.upperBound {
            known += UInt64(ranges[last].clamped(to: range).count)
            merged = min(merged.lowerBound, ranges[last].lowerBound)..<max(merged.upperBound, ranges[last].upperBound)
            last += 1
        }
        if last == first + 1 {
            ranges[first] = merged
        } else {
            ranges.replaceSubrange(first..<last, with: CollectionOfOne(merged))
        }
        let new = UInt64(range.count) - known
        byteCount += new
        return new
    }

    /// Takes a range away.
    ///
    /// - Returns: How many of its bytes were there.
    @discardableResult
    public mutating func remove(_ range: Range<UInt64>) -> UInt64 {
        guard !range.isEmpty else { return 0 }
        let first = firstIndex(endingAtOrAfter: range.lowerBound + 1)
        var last = first
        var removed: UInt64 = 0
        var rest: [Range<UInt64>] = []
        while last < ranges.count, ranges[last].lowerBound < range.upperBound {
            let one = ranges[last]
            removed += UInt64(one.clamped(to: range).count)
            if one.lowerBound < range.lowerBound { rest.append(one.lowerBound..<range.lowerBound) }
            if one.upperBound > range.upperBound { rest.append(range.upperBound..<one.upperBound) }
            last += 1
        }
        ranges.replaceSubrange(first..<last, with: rest)
        byteCount -= removed
        return removed
    }

    /// Whether every byte of the range is there. An empty range always is.
    public func contains(_ range: Range<UInt64>) -> Bool {
        guard !range.isEmpty else { return true }
        let index = firstIndex(endingAtOrAfter: range.lowerBound + 1)
        guard index < ranges.count else { return false }
        return ranges[index].lowerBound <= range.lowerBound && range.upperBound <= ranges[index].upperBound
    }

    /// The parts of a range that are not there, ascending.
    public func missing(in range: Range<UInt64>) -> [Range<UInt64>] {
        var holes: [Range<UInt64>] = []
        var position = range.lowerBound
        var index = firstIndex(endingAtOrAfter: range.lowerBound + 1)
        while index < ranges.count, ranges[index].lowerBound < range.upperBound {
            if position < ranges[index].lowerBound { holes.append(position..<ranges[index].lowerBound) }
            position = ranges[index].upperBound
            index += 1
        }
        if position < range.upperBound { holes.append(position..<range.upperBound) }
        return holes
    }

    /// The first byte at or after `offset` that is not there.
    public func firstMissing(from offset: UInt64) -> UInt64 {
        let index = firstIndex(endingAtOrAfter: offset + 1)
        guard index < ranges.count, ranges[index].lowerBound <= offset else { return offset }
        return ranges[index].upperBound
    }

    /// The first range whose upper bound is at least `offset`: `ranges.count` if there is none.
    private func firstIndex(endingAtOrAfter offset: UInt64) -> Int {
        if let last = ranges.last, last.lowerBound <= offset {
            return last.upperBound >= offset ? ranges.count - 1 : ranges.count
        }
        var (low, high) = (0, ranges.count)
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound < offset { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
