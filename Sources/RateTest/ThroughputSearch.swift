/// Searches for the highest rate whose loss keeps a goal: the throughput of RFC 2544 §26.1 when the goal is no loss
/// (no-drop rate), a partial-drop rate otherwise.
///
/// A bisection in which no single trial decides. Each trial is a vote, for its load or against it.
///
/// 1. Narrow, with short trials at the median of where the limit may be, which each vote shifts and none settles: every
///    vote that contradicts a place makes it eight times less likely, as if one trial in nine were wrong by chance
///    (bisection with noisy answers: Horstein 1963). It ends when all but a twentieth on either side lies within
///    ``Settings/precision``. At first, two fifths of it lie within 5 % of the hint; without a hint the first trial
///    sends at the maximum, and what arrived of it is the hint. Short trials never bound the result.
/// 2. Confirm, with trials of full length, a lower and an upper bound around that place. A load is decided when one
///    side leads by ``Settings/lead`` votes, or, after ``Settings/voteLimit`` votes, by majority: the exceed ratio of
///    0.5 of MLRsearch (RFC 9971) in the place of the fixed repeats of RFC 9411, so that a load where the sides are
///    near each other is measured more often than a clear one. What full trials decide, short ones do not contest:
///    failures at or below a load that passes count no more (loss inversion: an upper bound below a lower one), nor do
///    passes above a load that fails, and the search narrows anew on the other side. When two loads in a row fail that
///    short trials had passed, a queue hid them, and from then on all trials are of full length.
/// 3. Verify: a bound of the result leads by ``Settings/confirmations`` votes of full length, not only by `lead`. One
///    that loses its lead changes sides, and the search goes on.
///
/// How often that errs: if one trial in ten is wrong by chance, a bound of the result is wrong in fewer than one case
/// in a hundred, and only where short trials had led to it; of 20,000 simulated searches 2 were off by more than 3 %.
/// If one in five is wrong, one search in a hundred is, and six without a good hint.
///
/// A trial also fails when the queue of the path grew through it by more than half the precision of its length: the
/// path carries less than was sent, and only its queue hid it. A queue of 50 ms adds 5 % to what a second's trial finds
/// without that rule. It holds only if the caller knows, see ``Outcome/queueGrowth``.
///
/// Units: rates in any unit, the same throughout; lengths in seconds. Pure: ``nextTrial()`` says what to do,
/// ``record(_:)`` takes what came of it, and the sum of the lengths never exceeds ``Settings/timeLimit``.
public struct ThroughputSearch: Sendable {
    public struct Settings: Hashable, Sendable {
        public var minimum: Double
        public var maximum: Double
        /// Where to begin, such as what arrived of a trial that saturated the path.
        public var hint: Double?
        /// Lost over sent, at most.
        public var goalLossRatio = 0.0
        /// How far apart the bounds may be, relative to the upper one.
        public var precision = 0.01
        /// Length of a trial that only narrows.
        public var shortSeconds = 0.3
        /// Length of a trial that counts.
        public var fullSeconds = 1.0
        /// Votes by which one side leads when a load is decided; a single trial has one.
        public var lead = 2
        /// Votes by which a bound of the result leads: three of three, four of five.
        public var confirmations = 3
        /// Votes after which the majority decides; odd.
        public var voteLimit = 5
        /// Seconds of all trials together.
        public var timeLimit = 30.0

        public init(minimum: Double, maximum: Double, hint: Double? = nil) {
            self.minimum = minimum
            self.maximum = maximum
            self.hint = hint
        }
    }

    /// What to measure next.
    public struct Trial: Hashable, Sendable {
        public var rate: Double
        public var seconds: Double
        /// Whether it is of full length and counts for the result; otherwise it only narrows.
        public var counts: Bool
    }

    /// What came of a trial.
    public struct Outcome: Hashable, Sendable {
        /// Datagrams.
        public var sent: Int64
        public var lost: Int64
        /// Whether the sender kept the rate within 1 %. If not, the load counts as above what it can do.
        public var isValid: Bool
        /// The rate that it reached instead, if known.
        public var offered: Double?
        /// Seconds by which the delay had grown at the end of the trial; the least delays of its first and of its last
        /// tenth compared, for instance. Zero if not known.
        public var queueGrowth: Double

        public init(
            sent: Int64,
            lost: Int64,
            isValid: Bool = true,
            offered: Double? = nil,
            queueGrowth: Double = 0
        ) {
            self.sent = sent
            self.lost = lost
            self.isValid = isValid
            self.offered = offered
            self.queueGrowth = queueGrowth
        }

        /// Lost over sent; everything if nothing was sent.
        public var lossRatio: Double { sent > 0 ? Double(lost) / Double(sent) : 1 }
    }

    /// What is known of one load.
    public struct Load: Hashable, Sendable, Codable {
        public var rate: Double
        /// Trials of full length.
        public var passes = 0
        public var failures = 0
        public var shortPasses = 0
        public var shortFailures = 0
        /// Failures, short and full, for these reasons; the rest are losses.
        public var senderFailures = 0
        public var queueFailures = 0
        public var leastLossRatio = 1.0
        public var greatestLossRatio = 0.0

        public var trials: Int { passes + failures + shortPasses + shortFailures }
    }

    /// Why the search ended.
    public enum End: String, Hashable, Sendable, Codable {
        case found
        case maximumPasses = "maximum_passes"
        case minimumFails = "minimum_fails"
        case senderLimited = "sender_limited"
        case timeIsUp = "time_is_up"

        /// One sentence for the reader of a report.
        public var statement: String {
            switch self {
            case .found: "both bounds are confirmed and as near to each other as was asked for"
            case .maximumPasses: "even the maximum rate keeps the goal: the path may carry more"
            case .minimumFails: "even the minimum rate does not keep the goal"
            case .senderLimited: "the sender does not reach the upper bound: the path may carry more"
            case .timeIsUp: "the limit of trial time was reached: the bounds are no nearer than they are"
            }
        }
    }

    public struct Result: Hashable, Sendable, Codable {
        /// The rate searched for: the highest that keeps the goal, by at least `lead` votes of full length.
        public var lowerBound: Double?
        /// The lowest above it that does not, by at least `lead` votes of full length.
        public var upperBound: Double?
        public var end: End
        public var trials: Int
        public var seconds: Double
        /// By rate.
        public var loads: [Load]
    }

    private enum Verdict { case open, passes, fails }

    public let settings: Settings
    /// What is known so far, by rate.
    public private(set) var loads: [Load] = []
    private var pending: Trial?
    private var hint: Double?
    /// Factor of the next step down while full trials have found nothing that passes.
    private var stride: Double
    /// Loads that failed in full trials, one after the other, when short ones had led to them.
    private var misled = 0
    public private(set) var trials = 0
    /// Of all trials so far.
    public private(set) var seconds = 0.0
    public private(set) var end: End?

    /// - Precondition: 0 < minimum < maximum; lengths and precision are positive, `lead` is at least 2,
    ///   `confirmations` no less, and `voteLimit` odd and no less than that.
    public init(_ settings: Settings) {
        precondition(settings.minimum > 0 && settings.minimum < settings.maximum, "the range of rates is empty")
        precondition(settings.precision > 0 && settings.precision < 0.5, "a precision is a small part of one")
        precondition(settings.shortSeconds > 0 && settings.fullSeconds > 0, "a trial has a length")
        precondition(settings.lead >= 2, "a single trial decides nothing")
        precondition(settings.confirmations >= settings.lead, "a bound needs no fewer votes than any load")
        precondition(settings.voteLimit % 2 == 1 && settings.voteLimit >= settings.confirmations, "a majority is odd")
        self.settings = settings
        stride = 1 + 2 * settings.precision
        hint = settings.hint.map { min(max($0, settings.minimum), settings.maximum) }
    }

    /// What was found; `nil` while the search goes on.
    public var result: Result? {
        guard let end else { return nil }
        return Result(
            lowerBound: lowerBound,
            upperBound: upperBound,
            end: end,
            trials: trials,
            seconds: seconds,
            loads: loads
        )
    }

    /// The highest load that trials of full length passed, below any that they did not.
    public var lowerBound: Double? {
        let limit = upperBound ?? .infinity
        return loads.last { $0.rate < limit && verdict($0) == .passes }?.rate
    }

    /// The lowest load that trials of full length did not pass. With loss inversion that is the careful choice, and
    /// that of MLRsearch; the search itself never measures beyond a bound.
    public var upperBound: Double? { loads.first { verdict($0) == .fails }?.rate }

    /// The trial to run next, the same until its outcome is recorded; `nil` when the search has ended.
    public mutating func nextTrial() -> Trial? {
        if let pending { return pending }
        guard end == nil else { return nil }
        guard let trial = plan() else { return nil }
        guard seconds + trial.seconds <= settings.timeLimit * (1 + 1e-9) else {
            end = .timeIsUp
            return nil
        }
        pending = trial
        return trial
    }

    /// Takes what came of the trial that ``nextTrial()`` asked for.
    public mutating func record(_ outcome: Outcome) {
        guard let trial = pending else { return }
        pending = nil
        trials += 1
        seconds += trial.seconds
        let isSenderSlow = !outcome.isValid || outcome.sent <= 0
        let isQueueing = outcome.queueGrowth > settings.precision / 2 * trial.seconds
        let passed = outcome.lossRatio <= settings.goalLossRatio && !isSenderSlow && !isQueueing
        let index = index(of: trial.rate)
        switch (trial.counts, passed) {
        case (true, true): loads[index].passes += 1
        case (true, false): loads[index].failures += 1
        case (false, true): loads[index].shortPasses += 1
        case (false, false): loads[index].shortFailures += 1
        }
        if isSenderSlow {
            loads[index].senderFailures += 1
        } else if isQueueing {
            loads[index].queueFailures += 1
        }
        loads[index].leastLossRatio = min(loads[index].leastLossRatio, outcome.lossRatio)
        loads[index].greatestLossRatio = max(loads[index].greatestLossRatio, outcome.lossRatio)
        if hint == nil {
            let arrived = (outcome.offered ?? trial.rate) * (1 - outcome.lossRatio)
            let isTelling = passed || outcome.offered != nil || !isSenderSlow
            hint = clamped(isTelling ? arrived : (settings.minimum * settings.maximum).squareRoot())
        }
        guard trial.counts else { return }
        switch verdict(loads[index]) {
        case .open: break
        case .passes: if !distrustsShortTrials { misled = 0 }
        case .fails: if lowerBound == nil { misled += 1 }
        }
    }

    // MARK: - What is known

    private func verdict(_ load: Load) -> Verdict {
        let lead = load.passes - load.failures
        let isDecided = abs(lead) >= settings.lead || load.passes + load.failures >= settings.voteLimit
        return isDecided ? (lead > 0 ? .passes : .fails) : .open
    }

    /// Whether a bound may stand in the result.
    private func isConfirmed(_ load: Load) -> Bool {
        abs(load.passes - load.failures) >= settings.confirmations || load.passes + load.failures >= settings.voteLimit
    }

    private func isNear(_ low: Double, _ high: Double) -> Bool { high - low <= settings.precision * high * (1 + 1e-9) }

    private var distrustsShortTrials: Bool { misled >= 2 }

    // MARK: - What to do

    private mutating func plan() -> Trial? {
        guard let hint else { return short(settings.maximum) }
        // A load that has full votes is brought to a decision first.
        if let open = loads.first(where: { $0.passes + $0.failures > 0 && verdict($0) == .open }) {
            return full(open.rate)
        }
        let low = lowerBound
        let high = upperBound
        if let low, let high, isNear(low, high) {
            if let bound = unconfirmed(low) ?? unconfirmed(high) { return full(bound) }
            let upper = loads[index(of: high)]
            end = upper.senderFailures * 2 > upper.failures + upper.shortFailures ? .senderLimited : .found
            return nil
        }
        if let high, high <= settings.minimum { return confirmed(high, .minimumFails) }
        if let low, low >= settings.maximum { return confirmed(low, .maximumPasses) }
        if low == nil, let high, distrustsShortTrials { return full(descended(from: high)) }

        let whereabouts = Whereabouts(
            loads: loads,
            from: low,
            to: high,
            hint: hint,
            range: settings.minimum...settings.maximum
        )
        let least = whereabouts.quantile(0.05)
        let greatest = whereabouts.quantile(0.95)
        let width = 1 - settings.precision
        // The bound that completes a pair, if the limit is likely within it.
        if let low, greatest <= low / width { return full(clamped(low / width)) }
        if let high, least >= high * width { return full(clamped(high * width)) }
        if isNear(least, greatest) {
            if low == nil {
                // At an end of the range, that end; otherwise with as much room on either side.
                if least >= settings.maximum { return full(settings.maximum) }
                if greatest <= settings.minimum { return full(settings.minimum) }
                return full(clamped((least + greatest) / 2 * (1 - settings.precision / 2)))
            }
            return full(greatest)
        }
        // Half of the time is kept for trials that count.
        let isShort = seconds < settings.timeLimit / 2 && !distrustsShortTrials
        if !isShort, low == nil { return full(high.map { descended(from: $0) } ?? least) }
        let median = whereabouts.quantile(0.5)
        return isShort ? short(median) : full(median)
    }

    /// A bound at an end of the range ends the search when it is confirmed.
    private mutating func confirmed(_ bound: Double, _ reason: End) -> Trial? {
        if let bound = unconfirmed(bound) { return full(bound) }
        end = reason
        return nil
    }

    /// Below a load that fails: what arrived of it, or a step of 2 %, 4 %, 8 %, … down, whichever is less.
    private mutating func descended(from high: Double) -> Double {
        let arrived = high * (1 - loads[index(of: high)].leastLossRatio)
        let stepped = high / stride
        stride = min(2, stride * stride)
        return clamped(min(stepped, arrived))
    }

    private func unconfirmed(_ rate: Double) -> Double? {
        loads.first { $0.rate == rate && !isConfirmed($0) }?.rate
    }

    private func clamped(_ rate: Double) -> Double { min(max(rate, settings.minimum), settings.maximum) }

    private func short(_ rate: Double) -> Trial { Trial(rate: rate, seconds: settings.shortSeconds, counts: false) }
    private func full(_ rate: Double) -> Trial { Trial(rate: rate, seconds: settings.fullSeconds, counts: true) }

    /// Where a load is in the table, which is ordered by rate; it is added if it is new.
    private mutating func index(of rate: Double) -> Int {
        let place = loads.firstIndex { $0.rate >= rate } ?? loads.endIndex
        if place == loads.endIndex || loads[place].rate != rate { loads.insert(Load(rate: rate), at: place) }
        return place
    }
}

/// How likely the limit is where, given the votes of all trials and the bounds that full trials have confirmed.
///
/// Shape: between two neighbouring loads all places contradict the same votes, so only what was likely at first tells
/// them apart: two fifths evenly (by ratio) over the range, two fifths within 5 % of the hint, a tenth beyond either
/// end.
private struct Whereabouts {
    private struct Cell {
        /// Shares of what was likely at first: from, to.
        var from: Double
        var to: Double
        var weight: Double
    }

    private var cells: [Cell] = []
    private let range: ClosedRange<Double>
    private let near: ClosedRange<Double>

    init(loads: [ThroughputSearch.Load], from low: Double?, to high: Double?, hint: Double, range: ClosedRange<Double>)
    {
        self.range = range
        near = max(range.lowerBound, hint * 0.95)...min(range.upperBound, hint * 1.05)
        let inner = loads.filter { $0.rate > (low ?? 0) && $0.rate < (high ?? .infinity) }
        let edges = [low.map { share(below: $0) } ?? 0] + inner.map { share(below: $0.rate) }
        let ends = edges.dropFirst() + [high.map { share(below: $0) } ?? 1]
        // Votes outside contradict all places alike and do not count.
        var mistakes = inner.reduce(0) { $0 + $1.passes + $1.shortPasses }
        var counts = [mistakes]
        for load in inner {
            mistakes += load.failures + load.shortFailures - load.passes - load.shortPasses
            counts.append(mistakes)
        }
        let fewest = counts.min() ?? 0
        for (index, (from, to)) in zip(edges, ends).enumerated() {
            let likelihood = Double(sign: .plus, exponent: -3 * (counts[index] - fewest), significand: 1)
            cells.append(Cell(from: from, to: to, weight: (to - from) * likelihood))
        }
    }

    /// The rate below which the limit lies with a chance of `part`; an end of the range if it lies beyond.
    func quantile(_ part: Double) -> Double {
        var left = part * cells.reduce(0) { $0 + $1.weight }
        for cell in cells {
            if left <= cell.weight, cell.weight > 0 {
                return rate(cell.from + left / cell.weight * (cell.to - cell.from))
            }
            left -= cell.weight
        }
        return rate(cells.last?.to ?? 1)
    }

    private func share(below rate: Double) -> Double {
        func part(_ range: ClosedRange<Double>) -> Double {
            let from = Self.scale(range.lowerBound)
            let to = Self.scale(range.upperBound)
            return to > from ? min(max((Self.scale(rate) - from) / (to - from), 0), 1) : rate < range.lowerBound ? 0 : 1
        }
        return 0.1 + 0.4 * part(range) + 0.4 * part(near)
    }

    /// The inverse of `share(below:)`.
    private func rate(_ share: Double) -> Double {
        var from = Self.scale(range.lowerBound)
        var to = Self.scale(range.upperBound)
        for _ in 0..<50 {
            let middle = (from + to) / 2
            if self.share(below: Self.unscale(middle)) < share { from = middle } else { to = middle }
        }
        return min(max(Self.unscale((from + to) / 2), range.lowerBound), range.upperBound)
    }

    /// The binary logarithm within 0.09, rising and without a gap: that is all that is asked of it.
    private static func scale(_ rate: Double) -> Double { Double(rate.exponent) + rate.significand - 1 }

    private static func unscale(_ value: Double) -> Double {
        let whole = value.rounded(.down)
        return Double(sign: .plus, exponent: Int(whole), significand: 1 + value - whole)
    }
}
