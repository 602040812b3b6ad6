/// Counts of nanoseconds in buckets whose width grows with the value: exact below 256 ns, within 1/128 above.
///
/// Shape: 128 buckets for each power of two up to 2⁴² ns (73 minutes); what is longer counts in the last bucket. The
/// layout is HdrHistogram's (a linear part, then equal sub-buckets in every octave), in place and without allocation, so
/// that recording a value is a shift and an addition.
/// Units: nanoseconds.
@frozen
public struct LogLinearHistogram: ~Copyable {
    public static let bucketCount = 36 * 128
    @usableFromInline internal var counts = InlineArray<4_608, UInt64>(repeating: 0)
    /// Values recorded.
    public var count: UInt64 { counts.indices.reduce(0) { $0 &+ counts[$1] } }

    public init() {}

    /// The greatest value that is told from others; longer ones count as this.
    public static let limit: UInt64 = 1 << 42 - 1

    /// The bucket of a value.
    @inlinable @inline(__always)
    public static func bucket(of value: UInt64) -> Int {
        let value = min(value, limit)
        // Below 256 every value has a bucket of its own: bit 7 stands for all of them.
        let shift = UInt64(truncatingIfNeeded: 56 &- (value | 128).leadingZeroBitCount)
        return Int(truncatingIfNeeded: shift &* 128 &+ value &>> shift)
    }

    /// The greatest value that counts in a bucket.
    public static func greatest(of bucket: Int) -> UInt64 {
        guard bucket >= 256 else { return UInt64(bucket) }
        let shift = UInt64(bucket / 128 - 1)
        return (UInt64(bucket % 128) + 129) << shift - 1
    }

    /// Counts a value.
    @inlinable @inline(__always)
    public mutating func record(_ value: UInt64) {
        // In bounds: the bucket of the limit is the last one.
        unsafe counts[unchecked: Self.bucket(of: value)] &+= 1
    }

    /// Counts a value of a bucket.
    @inlinable @inline(__always)
    internal mutating func record(bucket: Int) { counts[bucket] &+= 1 }

    /// Counts a value so many times.
    public mutating func record(_ value: UInt64, times: UInt64) { counts[Self.bucket(of: value)] &+= times }

    /// Adds what another histogram has counted, and empties that one.
    public mutating func absorb(_ other: inout LogLinearHistogram) {
        for index in counts.indices where other.counts[index] != 0 {
            counts[index] &+= other.counts[index]
            other.counts[index] = 0
        }
    }

    /// The smallest value of which at least `fraction` of all are not above, to the width of its bucket; `nil` of nothing.
    ///
    /// - Precondition: `fraction` is in 0...1.
    public func quantile(_ fraction: Double) -> UInt64? {
        precondition(fraction >= 0 && fraction <= 1, "a quantile is between 0 and 1")
        let total = count
        guard total > 0 else { return nil }
        let rank = max(1, UInt64((fraction * Double(total)).rounded(.up)))
        var seen: UInt64 = 0
        for index in counts.indices {
            seen += counts[index]
            if seen >= rank { return Self.greatest(of: index) }
        }
        return nil
    }

    /// The buckets that are not empty: the greatest value of each, and how many it holds.
    public var buckets: [(greatest: UInt64, count: UInt64)] {
        counts.indices.compactMap { counts[$0] == 0 ? nil : (Self.greatest(of: $0), counts[$0]) }
    }
}
