public import PipelineCore

/// When a sender may send: the part that congestion control will replace.
public protocol RateController {
    /// The earliest time at which `byteCount` payload bytes may go; not after `now` if they may go now.
    mutating func earliest(for byteCount: UInt64, at now: Timestamp) -> Timestamp
    /// They went.
    mutating func sent(_ byteCount: UInt64, at now: Timestamp)
}

/// A configured rate with a bounded burst.
///
/// A schedule rather than a level: byte n of a busy period is due at `begin + n × 8 ÷ rate`, from totals, so the average
/// rate is exact however long it lasts. Up to `burst` bytes may go ahead of it. A sender that comes late, because its
/// thread was not run, catches up if it is late by no more than the slack; after a longer pause the schedule begins anew,
/// and what was not used is lost, but for one burst.
public struct TokenBucket: RateController, Sendable {
    public let rate: BitRate
    public let burst: UInt64
    /// Nanoseconds that a sender may be late and catch up.
    public static let usualSlack: Int64 = 10_000_000
    private let slack: Int64
    private var begin = Timestamp.unset
    private var scheduled: UInt64 = 0

    /// - Parameter slack: Nanoseconds that the sender may be late and catch up.
    public init(rate: BitRate, burst: UInt64, slack: Int64 = usualSlack) {
        self.rate = rate
        self.slack = slack
        self.burst = max(burst, 1)
    }

    public mutating func earliest(for byteCount: UInt64, at now: Timestamp) -> Timestamp {
        if begin == .unset || due(scheduled).nanoseconds + slack < now.nanoseconds {
            begin = now
            scheduled = 0
        }
        // More than a burst at once has to wait for the schedule alone.
        let ahead = burst > byteCount ? burst - byteCount : 0
        return due(scheduled > ahead ? scheduled - ahead : 0)
    }

    public mutating func sent(_ byteCount: UInt64, at now: Timestamp) { scheduled += byteCount }

    private func due(_ byteCount: UInt64) -> Timestamp {
        Timestamp(nanoseconds: begin.nanoseconds + rate.nanoseconds(for: byteCount))
    }
}
