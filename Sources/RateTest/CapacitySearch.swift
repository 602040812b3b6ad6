public import Measures

/// Searches for the IP-layer capacity of a path while it sends: the load rate adjustment of RFC 9097 §8.1 (ITU-T Y.1540,
/// annex B).
///
/// The receiver tells every 50 ms what came. An interval is clean if there were at most ten sequence errors (lost,
/// reordered, duplicated) and the delays stayed less than 30 ms above the smallest; impaired with more errors or more than
/// 90 ms; in between the rate stays. A clean interval raises the rate: fast until congestion is confirmed by three impaired
/// intervals without a clean one between them, then by one row. An impaired one lowers it by one row, the third by more.
///
/// - ``Algorithm/b``: fast is ten rows, the retreat 30. Confirmed congestion stays so for the rest of the test.
/// - ``Algorithm/c``: fast doubles the row in every second interval, the retreat is by 30 %, and after five slow steps (ten, fifteen, … after each
///   further retreat) the fast rise is tried again, so that a burst of losses does not hold a fast path down.
///
/// Fast rises end at 1 Gbit/s. The capacity is the greatest rate of received IP-layer bits over any second of arrival that
/// lies between two statuses (Maximum_C of RFC 9097 §6; sub-intervals there begin at whole seconds).
/// Units: bits a second at the IP layer. Pure: ``rate`` is what to send at, ``take(_:)`` takes what the receiver says.
public struct CapacitySearch: Sendable {
    public enum Algorithm: String, Sendable, CaseIterable { case b, c }

    /// A second of arrivals.
    public struct SubInterval: Hashable, Sendable, Codable {
        /// Nanoseconds of the receiver's clock.
        public var begin: Int64
        public var end: Int64
        public var bitsPerSecond: Double
        public var lossRatio: Double
        /// Greatest delay above the smallest seen, in nanoseconds.
        public var delayRange: Int64
    }

    /// Thresholds of RFC 9097 §8.1.
    static let lowDelay: Int64 = 30_000_000
    static let highDelay: Int64 = 90_000_000
    static let errorLimit: Int64 = 10
    static let confirmation = 3
    static let fastRows = 10
    static let retreatRows = 30
    static let fastLimit = 1_000
    static let stepsBeforeRetry = 5

    /// The sending rates: 0.5 Mbit/s, then steps of 1 Mbit/s to 1 Gbit/s, of 100 Mbit/s to 10, of 1 Gbit/s to 100.
    public static let table: [Double] = {
        var rows: [Double] = [0.5e6]
        for step in 1...1_000 { rows.append(Double(step) * 1e6) }
        for step in 11...100 { rows.append(Double(step) * 100e6) }
        for step in 11...100 { rows.append(Double(step) * 1e9) }
        return rows
    }()

    public let algorithm: Algorithm
    /// Bits of an IP packet.
    private let packetBits: Double
    public private(set) var row = 0
    private var previous: FlowStatus?
    private var leastDelay = Int64.max
    private var impairments = 0
    private var doublesNext = true
    private var slowSteps = 0
    private var retryAfter = stepsBeforeRetry
    /// The last second's statuses, with the delay range of each.
    private var recent: [(status: FlowStatus, range: Int64)] = []
    private var nextWhole: Int64?
    /// Whole seconds, one after the other.
    public private(set) var subIntervals: [SubInterval] = []
    /// The greatest rate of a second of arrival; `nil` before the first has passed.
    public private(set) var maximum: SubInterval?

    /// - Parameter packetByteCount: Bytes of an IP packet: payload, UDP header, IP header.
    public init(algorithm: Algorithm, packetByteCount: Int) {
        self.algorithm = algorithm
        packetBits = Double(packetByteCount * 8)
    }

    /// What to send at.
    public var rate: Double { Self.table[row] }

    /// Takes what the receiver tells: counts since the beginning, delays since the status before.
    public mutating func take(_ status: FlowStatus) {
        guard let before = previous else {
            previous = status
            recent = [(status, 0)]
            return
        }
        // The same status again: nothing has come since.
        guard status.time > before.time else { return adjust(isClean: false, isImpaired: true) }
        previous = status
        if status.greatestDelay >= 0 { leastDelay = min(leastDelay, status.leastDelay) }
        let range = leastDelay == .max ? 0 : max(0, status.greatestDelay &- leastDelay)
        measure(status, range)
        let missing = max(0, status.nextExpected - status.received - (before.nextExpected - before.received))
        let errors = missing + max(0, status.reordered - before.reordered) + max(0, status.copies - before.copies)
        adjust(
            isClean: errors <= Self.errorLimit && range < Self.lowDelay,
            isImpaired: errors > Self.errorLimit || range > Self.highDelay
        )
    }

    private mutating func adjust(isClean: Bool, isImpaired: Bool) {
        if isClean {
            if row < Self.fastLimit, impairments < Self.confirmation {
                row = min(Self.fastLimit, algorithm == .b ? row + Self.fastRows : doubled())
                impairments = 0
            } else {
                row = min(Self.table.count - 1, row + 1)
                countSlowStep(longer: true)
            }
        } else if isImpaired {
            impairments += 1
            if row < Self.fastLimit, impairments == Self.confirmation {
                row = retreated()
            } else {
                row = max(0, row - 1)
                countSlowStep(longer: false)
            }
        }
    }

    private func retreated() -> Int {
        guard algorithm == .c else { return max(0, row - Self.retreatRows) }
        // By rows a slow path would begin anew after every retreat, and seldom see a whole second at its rate.
        let goal = rate * 0.7
        return max(0, (Self.table.firstIndex { $0 > goal } ?? 1) - 1)
    }

    private mutating func doubled() -> Int {
        doublesNext.toggle()
        return doublesNext ? row : max(1, row * 2)
    }

    private mutating func countSlowStep(longer: Bool) {
        guard algorithm == .c, impairments >= Self.confirmation else { return }
        slowSteps += 1
        guard slowSteps >= retryAfter else { return }
        impairments = 0
        slowSteps = 0
        if longer { retryAfter += Self.stepsBeforeRetry }
    }

    /// Looks at the second of arrivals that ends with this status.
    private mutating func measure(_ status: FlowStatus, _ range: Int64) {
        recent.append((status, range))
        // The latest status that is a second old begins it.
        while recent.count > 1, status.time - recent[1].status.time >= 1_000_000_000 { recent.removeFirst() }
        guard let first = recent.first?.status, status.time - first.time >= 1_000_000_000 else { return }
        let received = status.received - first.received
        let expected = max(received, status.nextExpected - first.nextExpected)
        let second = SubInterval(
            begin: first.time,
            end: status.time,
            bitsPerSecond: Double(received) * packetBits * 1e9 / Double(status.time - first.time),
            lossRatio: expected > 0 ? Double(expected - received) / Double(expected) : 0,
            delayRange: recent.map(\.range).max() ?? 0
        )
        if second.bitsPerSecond > maximum?.bitsPerSecond ?? 0 { maximum = second }
        if status.time >= nextWhole ?? 0 {
            nextWhole = status.time + 1_000_000_000
            subIntervals.append(second)
        }
    }
}
