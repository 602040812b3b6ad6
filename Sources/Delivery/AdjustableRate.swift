public import PipelineCore
import Synchronization

/// A rate that another thread may change while a sender runs at it: what a search turns.
public final class AdjustableRate: Sendable {
    private let stored: Atomic<UInt64>
    public init(_ rate: BitRate) { stored = Atomic(rate.bitsPerSecond) }
    public var rate: BitRate {
        get { BitRate(bitsPerSecond: stored.load(ordering: .relaxed)) }
        set { stored.store(newValue.bitsPerSecond, ordering: .relaxed) }
    }
}

/// A token bucket whose rate may change: the schedule begins anew at each change.
public struct AdjustableTokenBucket: RateController, Sendable {
    private let source: AdjustableRate
    private let burst: UInt64
    private let slack: Int64
    private var bucket: TokenBucket

    public init(_ source: AdjustableRate, burst: UInt64, slack: Duration) {
        self.source = source
        self.burst = burst
        self.slack = Timestamp.zero.advanced(by: slack).nanoseconds
        bucket = TokenBucket(rate: source.rate, burst: burst, slack: self.slack)
    }

    public mutating func earliest(for byteCount: UInt64, at now: Timestamp) -> Timestamp {
        let rate = source.rate
        if rate != bucket.rate { bucket = TokenBucket(rate: rate, burst: burst, slack: slack) }
        return bucket.earliest(for: byteCount, at: now)
    }

    public mutating func sent(_ byteCount: UInt64, at now: Timestamp) { bucket.sent(byteCount, at: now) }
}
