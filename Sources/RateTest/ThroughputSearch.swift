/// Searches for the highest rate whose loss stays at or below a goal: the throughput of RFC 2544 §26.1 (no-drop rate) when
/// the goal is none, a partial-drop rate otherwise.
///
/// Bisection in which no single trial decides, after MLRsearch and the repeats of RFC 9411: a load is a lower bound when
/// more than half of `repeats` trials of the full duration keep the goal, an upper bound when more than half do not. When a
/// trial at a higher load passes by majority, what was thought to be an upper bound below it is forgotten and measured anew
/// (loss inversion). A short trial may narrow the range but never bounds the result.
///
/// A trial also fails when the path's queue grew through it by more than half of `precision` of its time: the load was above what
/// the path carries, and only the queue hid it. Without that rule a second's trial through a queue of 50 ms finds 5 % more
/// than there is.
///
/// Units: rates in any unit, the same throughout; durations in nanoseconds. Pure: ``nextTrial()`` says what to do,
/// ``record(_:)`` takes what came of it.
public struct ThroughputSearch: Sendable {
    /// What to measure next.
    public struct Trial: Hashable, Sendable {
        public var rate: Double
        public var duration: Int64
    }

    /// What came of a trial.
    public struct Outcome: Hashable, Sendable {
        public var sent: Int64
        public var lost: Int64
        /// The rate at which the sender really sent.
        public var offered: Double
        /// The rate at which datagrams arrived.
        public var received: Double
        /// How much longer the queue was at the end than at the beginning, in nanoseconds of delay.
        public var queueGrowth: Int64

        public init(sent: Int64, lost: Int64, offered: Double, received: Double, queueGrowth: Int64 = 0) {
            self.sent = sent
            self.lost = lost
            self.offered = offered
            self.received = received
            self.queueGrowth = queueGrowth
        }
    }

    /// One trial of the result's table.
    public struct Record: Hashable, Sendable, Codable {
        public var rate: Double
        public var duration: Int64
        public var lossRatio: Double
        public var passed: Bool
        /// `loss`, `queue`, `sender` or nothing.
        public var reason: String
    }

    /// Why the search ended.
    public enum End: String, Sendable, Codable {
        /// The bounds are as close as was asked for.
        case found
        /// The highest rate passes.
        case maximumPasses
        /// The lowest rate fails.
        case minimumFails
        /// The limit of trial time was reached; the bounds are what they are.
        case timeIsUp
        /// The sender cannot send faster, and what it can send passes.
        case senderLimited
    }

    public struct Settings: Sendable {
        public var minimum: Double
        public var maximum: Double
        /// Lost over sent.
        public var goal = 0.0
        /// How far the bounds may be apart, relative to the upper one.
        public var precision = 0.01
        /// Of a trial that counts, and of one that only narrows; nanoseconds.
        public var duration: Int64 = 1_000_000_000
        public var shortDuration: Int64 = 300_000_000
        /// Trials at a load; odd.
        public var repeats = 3
        /// Trial time in all, nanoseconds.
        public var limit: Int64 = 40_000_000_000

        public init(minimum: Double, maximum: Double) {
            self.minimum = minimum
            self.maximum = maximum
        }
    }

    private struct Load {
        var rate: Double
        var passes = 0
        var fails = 0
    }

    public let settings: Settings
    private var loads: [Load] = []
    private var pending: Trial?
    /// Bounds of the short trials: where to look, not what is known.
    private var guess: (low: Double, high: Double)
    private var narrowing = 0
    private var senderLimit: Double?
    private var used: Int64 = 0
    public private(set) var records: [Record] = []
    /// Why it ended; `nil` while it goes on.
    public private(set) var end: End?

    /// - Precondition: 0 < minimum < maximum, repeats odd.
    public init(_ settings: Settings) {
        precondition(settings.minimum > 0 && settings.minimum < settings.maximum, "the range of rates is empty")
        precondition(settings.repeats % 2 == 1, "an even number of trials may not decide")
        self.settings = settings
        guess = (settings.minimum, settings.maximum)
    }

    private var majority: Int { settings.repeats / 2 + 1 }
    /// The highest load that more than half of its trials passed.
    public var lowerBound: Double? { loads.filter { $0.passes >= majority }.map(\.rate).max() }
    /// The lowest load above the lower bound that more than half of its trials failed.
    public var upperBound: Double? {
        let low = lowerBound ?? 0
        return loads.filter { $0.fails >= majority && $0.rate > low }.map(\.rate).min()
    }

    /// The next trial; `nil` when the search has ended.
    public mutating func nextTrial() -> Trial? {
        if let pending { return pending }
        guard end == nil else { return nil }
        guard used < settings.limit else { return finish(.timeIsUp) }
        // Narrow: one saturating trial shows about what the path carries, two more bracket it.
        if narrowing < 3 {
            let rate = narrowing == 0 ? settings.maximum : narrowing == 1 ? guess.high : guess.low
            return ask(rate, settings.shortDuration)
        }
        // A load that has begun is brought to a decision first.
        if let open = loads.first(where: { $0.passes < majority && $0.fails < majority }) {
            return ask(open.rate, settings.duration)
        }
        switch (lowerBound, upperBound) {
        case (nil, nil): return open(clamped(guess.low))
        case (nil, let high?):
            if high <= settings.minimum { return finish(.minimumFails) }
            return open(clamped(max(settings.minimum, high * 0.5)))
        case (let low?, nil):
            if low >= settings.maximum { return finish(.maximumPasses) }
            if let senderLimit, low >= senderLimit * (1 - settings.precision) { return finish(.senderLimited) }
            return open(clamped(max(low * 1.02, min(guess.high, low * 2))))
        case (let low?, let high?):
            if high - low <= settings.precision * high { return finish(.found) }
            return open((low + high) / 2)
        }
    }

    /// Takes what came of the trial that ``nextTrial()`` asked for.
    public mutating func record(_ outcome: Outcome) {
        guard let trial = pending else { return }
        pending = nil
        used += trial.duration
        let ratio = outcome.sent > 0 ? Double(outcome.lost) / Double(outcome.sent) : 1
        var reason = ""
        if outcome.offered < trial.rate * 0.99 { reason = "sender" }
        if Double(outcome.queueGrowth) > settings.precision / 2 * Double(trial.duration) { reason = "queue" }
        if ratio > settings.goal { reason = "loss" }
        let passed = reason.isEmpty
        records.append(
            Record(rate: trial.rate, duration: trial.duration, lossRatio: ratio, passed: passed, reason: reason)
        )
        if reason == "sender" { senderLimit = min(senderLimit ?? .infinity, outcome.offered) }
        if narrowing < 3 {
            narrow(outcome, passed)
        } else if let index = loads.firstIndex(where: { $0.rate == trial.rate }) {
            if passed { loads[index].passes += 1 } else { loads[index].fails += 1 }
            forgetInverted()
        }
    }

    /// The first trial sends at the maximum: what arrives is about the answer. The other two try a little around it.
    private mutating func narrow(_ outcome: Outcome, _ passed: Bool) {
        switch narrowing {
        case 0:
            let seen = min(max(outcome.received, settings.minimum), settings.maximum)
            guess = passed ? (settings.maximum, settings.maximum) : (clamped(seen * 0.97), clamped(seen * 1.03))
            narrowing = passed ? 3 : 1
        case 1:
            if passed { guess = (guess.high, clamped(guess.high * 2)) }
            narrowing = passed ? 3 : 2
        default:
            if !passed { guess = (clamped(guess.low * 0.5), guess.low) }
            narrowing = 3
        }
    }

    /// A load that passed by majority makes failures below it doubtful.
    private mutating func forgetInverted() {
        guard let low = lowerBound else { return }
        let majority = majority
        loads.removeAll { $0.fails >= majority && $0.rate < low }
    }

    private func clamped(_ rate: Double) -> Double { min(max(rate, settings.minimum), settings.maximum) }

    private mutating func open(_ rate: Double) -> Trial {
        if !loads.contains(where: { $0.rate == rate }) { loads.append(Load(rate: rate)) }
        return ask(rate, settings.duration)
    }

    private mutating func ask(_ rate: Double, _ duration: Int64) -> Trial {
        let trial = Trial(rate: rate, duration: duration)
        pending = trial
        return trial
    }

    private mutating func finish(_ reason: End) -> Trial? {
        end = reason
        return nil
    }
}
