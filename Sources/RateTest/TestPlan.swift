public import Measures

/// What a rate test does: agreed by both ends before the first datagram.
public struct TestPlan: Codable, Hashable, Sendable {
    /// Who sends.
    public enum Direction: String, Codable, Sendable, CaseIterable {
        /// The client.
        case up
        /// The server.
        case down
        /// Both at once.
        case both
    }

    public var direction = Direction.up
    /// Flows in each direction, each with a socket and a lane of its own at both ends.
    public var flows = 1
    /// UDP payload of a datagram in bytes, its header of 32 bytes included.
    public var size = 1_200
    /// UDP payload bits a second of one direction, all flows together; `nil`: as fast as can be.
    public var rate: UInt64?
    /// Nanoseconds that are measured.
    public var duration: Int64 = 10_000_000_000
    /// Nanoseconds before them that are not.
    public var warmUp: Int64 = 0
    /// Nanoseconds of an interval of the report.
    public var interval: Int64 = 1_000_000_000
    /// Datagrams of a super-packet that the kernel cuts; 1: none.
    public var segments = 1
    /// Whether receivers let the kernel join datagrams.
    public var gro = true
    /// How receivers wait: `spin`, `block` or `nap`.
    public var wait = "nap"
    /// Whether delay ends at the kernel's receive stamp rather than in the application.
    public var kernelStamps = true
    /// Bytes of socket buffer at receivers.
    public var receiveBuffer = 8 << 20
    /// How often receivers tell where they stand, in nanoseconds.
    public var statusInterval: Int64 = 1_000_000_000
    /// How long a receiver waits for what is on its way when the sender has ended, in nanoseconds of silence.
    public var quiet: Int64 = 500_000_000

    public init() {}

    /// The largest number of anything that a plan may ask of its peer.
    static let longest: Int64 = 24 * 3_600 * 1_000_000_000

    /// What is wrong with it, one sentence each; the other end may be anybody.
    public var problems: [String] {
        var problems: [String] = []
        func check<Value: Comparable>(_ name: String, _ value: Value, _ range: ClosedRange<Value>) {
            if !range.contains(value) {
                problems.append("\(name) must be \(range.lowerBound) to \(range.upperBound), found \(value)")
            }
        }
        check("flows", flows, 1...64)
        check("size", size, 32...65_507)
        check("duration", duration, 1_000_000...Self.longest)
        check("warm-up", warmUp, 0...Self.longest)
        check("interval", interval, 1_000_000...Self.longest)
        check("segments", segments, 1...128)
        check("receive buffer", receiveBuffer, 2_048...(1 << 30))
        check("status interval", statusInterval, 10_000_000...Self.longest)
        check("quiet", quiet, 0...60_000_000_000)
        if let rate { check("rate", rate, 1...1_000_000_000_000_000) }
        if !["spin", "block", "nap"].contains(wait) {
            problems.append("wait must be spin, block or nap, found '\(wait.prefix(20))'")
        }
        if problems.isEmpty, segments * size > 65_507 {
            problems.append("a super-packet is at most 65507 bytes, found \(segments) × \(size) = \(segments * size)")
        }
        if problems.isEmpty, duration / interval > 100_000 {
            problems.append("a test has at most 100000 intervals, found \(duration / interval)")
        }
        return problems
    }

    var sendsUp: Bool { direction != .down }
    var sendsDown: Bool { direction != .up }
}

/// What one end says of one flow in one direction.
public struct FlowEnd: Codable, Hashable, Sendable {
    public var flow: UInt32
    public var sender: SenderReport?
    public var receiver: ReceiverReport?
    public var socket: SocketReport?
    /// Why its lane ended early, if it did.
    public var fault: String?
    public init(flow: UInt32) { self.flow = flow }
}

/// What both ends know of one flow in one direction.
public struct FlowResult: Codable, Hashable, Sendable {
    public var flow: UInt32
    /// Absent if the test ended before the end that sends could tell.
    public var sender: SenderReport?
    public var receiver: ReceiverReport?
    public var socket: SocketReport?

    public init(flow: UInt32) { self.flow = flow }
}

/// One row of a result: what was sent within an interval, and what became of it.
public struct TestInterval: Codable, Hashable, Sendable {
    /// Nanoseconds since measuring began.
    public var begin: Int64
    public var end: Int64
    public var sent: Int64 = 0
    public var received: Int64 = 0
    /// `sent` − `received`.
    public var lost: Int64 = 0
    public var duplicated: Int64 = 0
    public var reordered: Int64 = 0
    public var late: Int64 = 0
    /// UDP payload bytes received, without copies (goodput of RFC 2647 when divided by time).
    public var byteCount: Int64 = 0
    /// The flow's own if there is one flow, else the greatest.
    public var jitter: Int64 = 0
    public var delay = DelayQuantiles()
}

/// One direction of a result.
public struct DirectionResult: Codable, Hashable, Sendable {
    public var direction: TestPlan.Direction
    public var flows: [FlowResult]
    public init(_ direction: TestPlan.Direction, flows: [FlowResult]) {
        self.direction = direction
        self.flows = flows
    }

    /// Whether both ends have told.
    public var isComplete: Bool { flows.allSatisfy { $0.sender != nil && $0.receiver != nil } }

    /// Where every datagram went, warm-up included, all flows together.
    public struct Account: Codable, Hashable, Sendable {
        public var sent: Int64 = 0
        public var received: Int64 = 0
        /// Dropped by the receiving socket: its buffer was full. A kernel that joins datagrams counts what it joined; such
        /// a count is taken times the datagrams of a super-packet, which is exact where none is cut on the way.
        public var socketDropped: Int64 = 0
        /// Arrived damaged.
        public var corrupted: Int64 = 0
        /// Arrived too far behind to count.
        public var late: Int64 = 0
        /// The rest: lost on the path. `sent` = `received` + these four.
        public var pathLost: Int64 = 0
        public var duplicated: Int64 = 0
        public var reordered: Int64 = 0
        /// Not of the test.
        public var foreign: Int64 = 0
        /// Not sent: refused by the sender's own system.
        public var refused: Int64 = 0
    }

    public func account(of plan: TestPlan) -> Account {
        var account = Account()
        for flow in flows {
            let sender = flow.sender ?? SenderReport()
            let receiver = flow.receiver ?? ReceiverReport()
            account.sent += sender.total.sent + sender.warmUp.sent
            account.refused += sender.total.refused + sender.warmUp.refused
            account.received += receiver.total.received + receiver.warmUp.received
            account.duplicated += receiver.total.duplicated + receiver.warmUp.duplicated
            account.reordered += receiver.total.reordered + receiver.warmUp.reordered
            account.late += receiver.total.late + receiver.warmUp.late
            account.corrupted += receiver.corrupted
            account.foreign += receiver.foreign
            account.socketDropped += flow.socket?.dropped ?? 0
        }
        let missing = account.sent - account.received - account.corrupted - account.late
        if plan.gro, plan.segments > 1 {
            account.socketDropped = min(max(0, missing), account.socketDropped * Int64(plan.segments))
        }
        account.pathLost = missing - account.socketDropped
        return account
    }

    /// All intervals, all flows together.
    public func intervals(of plan: TestPlan) -> [TestInterval] {
        let count = flows.map { max($0.sender?.intervals.count ?? 0, $0.receiver?.intervals.count ?? 0) }.max() ?? 0
        return (0..<count).map { index in
            let begin = Int64(index) * plan.interval
            var row = TestInterval(begin: begin, end: min(begin + plan.interval, plan.duration))
            for flow in flows {
                if let sent = flow.sender?.intervals[safe: index] { row.sent += sent.sent }
                guard let arrivals = flow.receiver?.intervals[safe: index] else { continue }
                row.received += arrivals.counts.received
                row.duplicated += arrivals.counts.duplicated
                row.reordered += arrivals.counts.reordered
                row.late += arrivals.counts.late
                row.byteCount += arrivals.counts.byteCount
                row.jitter = max(row.jitter, arrivals.jitter)
                row.delay = row.delay.worse(arrivals.delay)
            }
            row.lost = row.sent - row.received
            return row
        }
    }

    /// What was measured, all intervals and all flows together.
    public func total(of plan: TestPlan) -> TestInterval {
        var total = TestInterval(begin: 0, end: plan.duration)
        for flow in flows {
            total.sent += flow.sender?.total.sent ?? 0
            guard let receiver = flow.receiver else { continue }
            total.received += receiver.total.received
            total.duplicated += receiver.total.duplicated
            total.reordered += receiver.total.reordered
            total.late += receiver.total.late
            total.byteCount += receiver.total.byteCount
            total.jitter = max(total.jitter, receiver.jitter)
        }
        total.lost = total.sent - total.received
        total.delay = delay
        return total
    }

    /// One-way delays of all flows.
    public var delay: DelayQuantiles {
        var histogram = LogLinearHistogram()
        for bucket in flows.flatMap({ $0.receiver?.delayBuckets ?? [] }) where bucket.count == 2 {
            histogram.record(bucket[0], times: bucket[1])
        }
        return DelayQuantiles(histogram)
    }
}

/// How the clocks of the two ends stand to each other.
public struct ClockRelation: Codable, Hashable, Sendable {
    /// Both ends run on one kernel and share its clock.
    public var isShared: Bool
    /// The server's clock minus the client's, in nanoseconds; 0 if shared.
    public var offset: Int64 = 0
    /// How far the offset may be wrong: half the shortest round trip.
    public var error: Int64 = 0
    public init(isShared: Bool) { self.isShared = isShared }
}

/// All that came of a test.
public struct TestResult: Codable, Sendable {
    public var plan: TestPlan
    public var directions: [DirectionResult]
    public var clock: ClockRelation
    /// Why the test ended before its time; what is here is what was known then.
    public var ended: String?
    /// What a person should know: a buffer that was not granted, super-packets that were refused.
    public var warnings: [String]
}

extension Array {
    subscript(safe index: Int) -> Element? { indices.contains(index) ? self[index] : nil }
}

extension DelayQuantiles {
    /// The greater of each; quantiles of several flows cannot be merged any better than this without their histograms.
    func worse(_ other: DelayQuantiles) -> DelayQuantiles {
        var worse = self
        worse.least = least < 0 ? other.least : other.least < 0 ? least : min(least, other.least)
        worse.p50 = max(p50, other.p50)
        worse.p90 = max(p90, other.p90)
        worse.p99 = max(p99, other.p99)
        worse.p999 = max(p999, other.p999)
        worse.p9999 = max(p9999, other.p9999)
        worse.greatest = max(greatest, other.greatest)
        return worse
    }
}
