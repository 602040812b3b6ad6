/// What became of the datagrams sent within one interval, as their receiver counts them.
///
/// Every datagram that arrives is in exactly one of the first four; `received` is the sum of the first two.
@frozen
public struct ArrivalCounts: Hashable, Sendable, Codable {
    /// First copies that came in order.
    public var inOrder: Int64 = 0
    /// First copies that came after one with a larger number (RFC 4737).
    public var reordered: Int64 = 0
    /// Copies of what had come (RFC 5560).
    public var duplicated: Int64 = 0
    /// Too far behind to tell a first copy from a second; not received, so among the lost (RFC 7680).
    public var late: Int64 = 0
    /// Bytes of UDP payload of first copies.
    public var byteCount: Int64 = 0

    public init() {}
    /// First copies.
    public var received: Int64 { inOrder + reordered }

    public static func += (sum: inout ArrivalCounts, more: ArrivalCounts) {
        sum.inOrder += more.inOrder
        sum.reordered += more.reordered
        sum.duplicated += more.duplicated
        sum.late += more.late
        sum.byteCount += more.byteCount
    }
}

/// Quantiles of a set of times, in nanoseconds; -1 where there was nothing.
public struct DelayQuantiles: Hashable, Sendable, Codable {
    public var least: Int64 = -1
    public var p50: Int64 = -1
    public var p90: Int64 = -1
    public var p99: Int64 = -1
    public var p999: Int64 = -1
    public var p9999: Int64 = -1
    public var greatest: Int64 = -1

    public init() {}

    public init(_ histogram: borrowing LogLinearHistogram) {
        func quantile(_ fraction: Double) -> Int64 { histogram.quantile(fraction).map { Int64(clamping: $0) } ?? -1 }
        least = quantile(0)
        p50 = quantile(0.5)
        p90 = quantile(0.9)
        p99 = quantile(0.99)
        p999 = quantile(0.999)
        p9999 = quantile(0.9999)
        greatest = quantile(1)
    }
}

/// One interval of one flow.
public struct IntervalArrivals: Hashable, Sendable, Codable {
    public var counts = ArrivalCounts()
    /// One-way delays of the datagrams that came while the interval was the newest.
    public var delay = DelayQuantiles()
    /// The interarrival jitter at its end, in nanoseconds.
    public var jitter: Int64 = 0
    public init() {}
}

/// Everything about the arrivals of one flow that can be told without a clock: loss, reordering, duplication, delay and
/// its variation, in all and for each interval.
///
/// Intervals are of *sending*: a datagram belongs to the one that its send time lies in, however late it comes, so that the
/// sender's count and the receiver's are of the same datagrams and subtract exactly. Time before `begin` is warm-up.
/// Nothing is allocated and no reference counted for a datagram.
/// Units: nanoseconds; send and arrival times on one clock, or shifted onto one by the caller.
/// Source: RFC 7680 (loss), RFC 4737 (reordering), RFC 5560 (duplication), RFC 7679 (delay), RFC 5481 (PDV), RFC 3393
/// (IPDV), RFC 3550 (jitter).
@frozen
public struct DatagramAccount: ~Copyable {
    @usableFromInline internal var window = SequenceWindow()
    /// Of the interval at hand.
    @usableFromInline internal var counts = ArrivalCounts()
    @usableFromInline internal var intervalBegin: Int64 = 0
    @usableFromInline internal var intervalLength: UInt64 = 0
    @usableFromInline internal var interval = -1
    @usableFromInline internal var previousDelay = Int64.min
    @usableFromInline internal var leastDelay = Int64.max
    @usableFromInline internal var greatestDelay = Int64.min
    @usableFromInline internal var jitterEstimate = InterarrivalJitter()
    @usableFromInline internal var recentDelay = LogLinearHistogram()
    @usableFromInline internal var delay = LogLinearHistogram()
    @usableFromInline internal var variation = LogLinearHistogram()
    @usableFromInline internal var extents = LogLinearHistogram()
    /// The interval whose delays are in `recentDelay`.
    private var newest = -1
    private var isSettled = false
    private var sendIntervals: SendIntervals
    /// Counts of the warm-up, then of each interval.
    public private(set) var warmUp = ArrivalCounts()
    public private(set) var intervals: [IntervalArrivals] = []

    /// An account that nothing has arrived in.
    ///
    /// - Parameters:
    ///   - begin: When measuring begins, in send time; `nil`: with the first datagram.
    ///   - intervalLength: Nanoseconds, positive.
    ///   - intervalLimit: The most intervals; what was sent later counts in the last one.
    public init(begin: Int64?, intervalLength: Int64, intervalLimit: Int = 100_000) {
        sendIntervals = SendIntervals(begin: begin, length: intervalLength, limit: intervalLimit)
        intervals.reserveCapacity(min(intervalLimit, 1_024))
    }

    /// Takes a datagram into account.
    ///
    /// - Parameters:
    ///   - sent: Its send time.
    ///   - arrived: When it arrived.
    ///   - byteCount: Its UDP payload.
    @inlinable @inline(__always)
    public mutating func receive(sequence: UInt64, sent: Int64, arrived: Int64, byteCount: Int) {
        if UInt64(bitPattern: sent &- intervalBegin) >= intervalLength { enterInterval(of: sent) }
        let transit = arrived &- sent
        let difference = transit &- previousDelay
        if window.note(sequence) == .inOrder, previousDelay != Int64.min {
            counts.inOrder &+= 1
            counts.byteCount &+= Int64(truncatingIfNeeded: byteCount)
            jitterEstimate.update(difference: difference)
            variation.record(difference.magnitude)
        } else {
            receiveOutOfOrder(transit, byteCount)
        }
        previousDelay = transit
        // Neighbours in a train have one delay.
        if difference != 0 { noteDelay(transit) }
        recentDelay.record(UInt64(bitPattern: max(0, transit)))
    }

    /// Takes a datagram into account that was sent and arrived at the same times as the one before, as in a train: its delay
    /// is that one's, and so are its interval and its bucket.
    ///
    /// - Precondition: A datagram has been received before, with the same times.
    @inlinable @inline(__always)
    public mutating func receiveAgain(sequence: UInt64, byteCount: Int, bucket: Int) {
        if window.note(sequence) == .inOrder {
            counts.inOrder &+= 1
            counts.byteCount &+= Int64(truncatingIfNeeded: byteCount)
            jitterEstimate.update(difference: 0)
            variation.record(bucket: 0)
        } else {
            receiveOutOfOrder(previousDelay, byteCount)
        }
        recentDelay.record(bucket: bucket)
    }

    /// The bucket of the last datagram's delay.
    @inlinable @inline(__always)
    public var delayBucket: Int { LogLinearHistogram.bucket(of: UInt64(bitPattern: max(0, previousDelay))) }

    @inlinable @inline(__always)
    internal mutating func noteDelay(_ transit: Int64) {
        leastDelay = min(leastDelay, transit)
        greatestDelay = max(greatestDelay, transit)
    }

    /// The first datagram of all, and those that came out of order.
    @usableFromInline
    internal mutating func receiveOutOfOrder(_ transit: Int64, _ byteCount: Int) {
        if previousDelay != Int64.min { jitterEstimate.update(difference: transit &- previousDelay) }
        switch window.lastArrival {
        case .inOrder:
            counts.inOrder += 1
            counts.byteCount += Int64(byteCount)
        case .reordered:
            counts.reordered += 1
            counts.byteCount += Int64(byteCount)
            extents.record(window.lastExtent)
        case .duplicate: counts.duplicated += 1
        case .late: counts.late += 1
        }
    }

    /// Puts what was counted where it belongs and goes on in the interval of `sent`.
    @usableFromInline
    internal mutating func enterInterval(of sent: Int64) {
        flush()
        let (place, begin) = sendIntervals.place(sent)
        guard let place else {
            // Warm-up: one interval that reaches back as far as need be.
            interval = -1
            intervalBegin = Int64.min
            intervalLength = UInt64(bitPattern: begin &- Int64.min)
            return
        }
        interval = place
        intervalBegin = begin &+ Int64(interval) &* sendIntervals.length
        let isLast = interval == sendIntervals.limit - 1
        intervalLength = UInt64(bitPattern: isLast ? Int64.max &- intervalBegin : sendIntervals.length)
        if interval > newest {
            closeNewest()
            newest = interval
            while intervals.count <= interval { intervals.append(IntervalArrivals()) }
        }
    }

    private mutating func flush() {
        guard interval >= 0 else {
            warmUp += counts
            counts = ArrivalCounts()
            return
        }
        intervals[interval].counts += counts
        counts = ArrivalCounts()
    }

    /// Ends the newest interval: its delays become part of all, those of the warm-up are forgotten.
    private mutating func closeNewest() {
        if newest >= 0 {
            intervals[newest].delay = DelayQuantiles(recentDelay)
            intervals[newest].jitter = jitterEstimate.nanoseconds
            delay.absorb(&recentDelay)
        } else {
            recentDelay = LogLinearHistogram()
            variation = LogLinearHistogram()
            extents = LogLinearHistogram()
        }
    }

    /// Ends the account: the last interval's delays become part of all. Does nothing the second time; call it before reading.
    public mutating func settle() {
        flush()
        guard newest >= 0, !isSettled else { return }
        isSettled = true
        closeNewest()
    }

    /// The sum of all intervals.
    public var total: ArrivalCounts { intervals.reduce(into: ArrivalCounts()) { $0 += $1.counts } }
    /// One-way delays.
    public var delayQuantiles: DelayQuantiles { DelayQuantiles(delay) }
    /// The differences of neighbours' delays, without sign (IPDV of RFC 3393 between datagrams that came in order).
    public var variationQuantiles: DelayQuantiles { DelayQuantiles(variation) }
    /// How far datagrams were displaced: arrivals since the first with a larger number (RFC 4737 §4.2.2).
    public var extentQuantiles: DelayQuantiles { DelayQuantiles(extents) }
    /// Nanoseconds.
    public var jitter: Int64 { jitterEstimate.nanoseconds }
    /// One more than the largest sequence number that came.
    public var nextExpected: UInt64 { window.nextExpected }
    /// Where the flow stands, with the delays since the last time this was asked.
    public mutating func status() -> FlowStatus {
        var status = FlowStatus()
        status.received = Int64(clamping: window.arrivalCount &- window.copyCount)
        status.copies = Int64(clamping: window.copyCount)
        status.reordered = Int64(clamping: window.reorderedCount)
        status.nextExpected = Int64(clamping: window.nextExpected)
        if leastDelay <= greatestDelay {
            status.leastDelay = leastDelay
            status.greatestDelay = greatestDelay
        }
        // A steady flow repeats its last delay without a word.
        leastDelay = previousDelay == .min ? .max : previousDelay
        greatestDelay = previousDelay
        return status
    }
    /// First copies so far, warm-up included.
    public var firstCopyCount: Int64 { Int64(clamping: window.arrivalCount &- window.copyCount) }
    /// Calls `body` with the greatest value and the count of every bucket of the delays.
    public func forEachDelay(_ body: (UInt64, UInt64) -> Void) {
        for bucket in delay.buckets { body(bucket.greatest, bucket.count) }
    }
}

extension DelayQuantiles {
    /// Delay variation above the smallest (PDV of RFC 5481), from quantiles of delays.
    public var aboveLeast: DelayQuantiles {
        guard least >= 0 else { return self }
        var shifted = self
        shifted.least = 0
        shifted.p50 -= least
        shifted.p90 -= least
        shifted.p99 -= least
        shifted.p999 -= least
        shifted.p9999 -= least
        shifted.greatest -= least
        return shifted
    }
}
