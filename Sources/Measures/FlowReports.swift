/// What one sender counted for one interval of send time.
public struct IntervalDepartures: Hashable, Sendable, Codable {
    /// Datagrams that the kernel took.
    public var sent: Int64 = 0
    /// Datagrams that the system refused for good (a firewall of its own); their numbers are never seen.
    public var refused: Int64 = 0
    /// Bytes of UDP payload sent.
    public var byteCount: Int64 = 0
    public init() {}

    public static func += (sum: inout IntervalDepartures, more: IntervalDepartures) {
        sum.sent += more.sent
        sum.refused += more.refused
        sum.byteCount += more.byteCount
    }
}

/// Counts what one flow sends, by intervals of send time: the other half of ``DatagramAccount``, with the same intervals.
public struct DepartureAccount: Sendable {
    private var sendIntervals: SendIntervals
    public private(set) var warmUp = IntervalDepartures()
    public private(set) var intervals: [IntervalDepartures] = []

    /// - Parameter begin: When measuring begins, in send time; `nil`: with the first datagram.
    public init(begin: Int64?, intervalLength: Int64, intervalLimit: Int = 100_000) {
        sendIntervals = SendIntervals(begin: begin, length: intervalLength, limit: intervalLimit)
        intervals.reserveCapacity(min(intervalLimit, 1_024))
    }

    /// Counts datagrams with one send time.
    public mutating func add(_ departures: IntervalDepartures, sentAt time: Int64) {
        guard let interval = sendIntervals.place(time).interval else {
            warmUp += departures
            return
        }
        while intervals.count <= interval { intervals.append(IntervalDepartures()) }
        intervals[interval] += departures
    }

    public var total: IntervalDepartures { intervals.reduce(into: IntervalDepartures()) { $0 += $1 } }
}

/// Processor time of one lane's thread, and how long it waited for a processor.
public struct ThreadUsage: Hashable, Sendable, Codable {
    public var processorNanoseconds: Int64 = 0
    /// -1 where the system does not tell.
    public var runQueueDelayNanoseconds: Int64 = -1
    public init() {}
}

/// What the sending end of a flow says of it.
public struct SenderReport: Hashable, Sendable, Codable {
    public var warmUp = IntervalDepartures()
    public var intervals: [IntervalDepartures] = []
    public var total = IntervalDepartures()
    /// From the first send time to the last, in nanoseconds.
    public var span: Int64 = 0
    /// System calls.
    public var calls: Int64 = 0
    /// Times the socket's buffer was full.
    public var fullBuffers: Int64 = 0
    /// Times the system had no memory for a datagram (ENOBUFS); it was sent later.
    public var noBuffers: Int64 = 0
    /// ICMP errors that came back: nobody listens, or there is no way.
    public var unreachable: Int64 = 0
    /// Whether the kernel refused to cut super-packets, which then went one by one.
    public var segmentationRefused = false
    public var usage = ThreadUsage()
    public init() {}
}

/// What the receiving socket of a flow says of it.
public struct SocketReport: Hashable, Sendable, Codable {
    /// System calls that brought something.
    public var calls: Int64 = 0
    /// Messages: datagrams, or super-packets of the kernel's making.
    public var messages: Int64 = 0
    /// Messages longer than the room for them.
    public var truncated: Int64 = 0
    /// Datagrams that the socket dropped because its buffer was full.
    public var dropped: Int64 = 0
    /// The receive buffer, in bytes as the kernel counts.
    public var receiveBuffer: Int64 = 0
    /// ICMP errors that were waiting.
    public var errors: Int64 = 0
    /// From the kernel's receive stamp to the application.
    public var kernelToApplication = DelayQuantiles()
    /// Between neighbouring messages, by the kernel's receive stamps.
    public var interarrival = DelayQuantiles()
    public var usage = ThreadUsage()
    public init() {}
}

/// Where a flow stands while it runs, as its receiver sees it. Counts are from its beginning, warm-up included.
public struct FlowStatus: Hashable, Sendable, Codable {
    /// When this was so, in nanoseconds of the receiver's clock.
    public var time: Int64 = 0
    /// First copies.
    public var received: Int64 = 0
    /// Duplicates, and what came too late to tell.
    public var copies: Int64 = 0
    public var reordered: Int64 = 0
    /// One more than the largest number that came.
    public var nextExpected: Int64 = 0
    /// One-way delays since the status before, in nanoseconds; -1 if nothing came.
    public var leastDelay: Int64 = -1
    public var greatestDelay: Int64 = -1
    public init() {}
}

/// What the receiving end of a flow says of it.
public struct ReceiverReport: Hashable, Sendable, Codable {
    public var warmUp = ArrivalCounts()
    public var intervals: [IntervalArrivals] = []
    public var total = ArrivalCounts()
    /// Ours by its header, and damaged: its length is not what the header says.
    public var corrupted: Int64 = 0
    /// Not of this flow.
    public var foreign: Int64 = 0
    public var delay = DelayQuantiles()
    /// IPDV (RFC 3393), without sign.
    public var variation = DelayQuantiles()
    public var reorderingExtent = DelayQuantiles()
    public var jitter: Int64 = 0
    /// The delay histogram: the greatest value of a bucket, and its count.
    public var delayBuckets: [[UInt64]] = []
    public init() {}
}
