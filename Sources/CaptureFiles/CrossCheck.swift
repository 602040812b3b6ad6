import Measures

/// What a tap says of itself.
public struct TapReport: Sendable {
    /// The interface, or the file.
    public var name: String
    public var side: DatagramJoin.Side
    /// Packets in the capture.
    public var delivered: UInt64 = 0
    /// Packets that the kernel took for the tap, and those of them that it dropped; `nil` if nobody counted.
    public var received: UInt64?
    public var dropped: UInt64?
    /// Whether a datagram of our own was seen before the first and after the last: the tap lived all the time.
    public var sawBeginning = true
    public var sawEnd = true
    /// Packets whose headers could not be read.
    public var undecoded: UInt64 = 0
    /// Packets of other flows.
    public var foreign: UInt64 = 0
    /// The same packet, seen again at the same tap: both directions of the loopback, a mirrored port.
    public var doubled: UInt64 = 0
    /// Packets with a time before that of the packet before them.
    public var inversions: UInt64 = 0
    /// What its times are rounded to, in nanoseconds: 1,000 for microseconds.
    public var grain: Int64 = 0
    /// Whether it was shown to be live by a probe of its own.
    public var isProbed = true
    /// Whether its file ends in the middle.
    public var isCut = false

    public init(name: String, side: DatagramJoin.Side) {
        self.name = name
        self.side = side
    }

    /// Packets that the kernel took, did not drop, and that are not in the capture; `nil` if nobody counted.
    public var unread: Int64? {
        guard let received else { return nil }
        return difference(
            difference(Int64(clamping: received), Int64(clamping: dropped ?? 0)),
            Int64(clamping: delivered)
        )
    }
}

/// Counters that explain why a datagram is in one place and not in the next.
public struct CheckCounters: Sendable {
    /// Dropped by the sender's queueing discipline; `nil` if nobody counted.
    public var queueDropped: Int64?
    /// Dropped by the receiver's socket; `nil` if nobody counted.
    public var socketDropped: Int64?
    /// In the receiver's socket when it was closed, and read by nobody.
    public var unread: Int64 = 0
    /// When the receiver closed its socket, by CLOCK_REALTIME: what comes after that is received by nobody.
    public var receiverClosed: Int64?
    public init() {}
}

/// How the clocks of sender and receiver meet.
public enum ClockRelation: Sendable {
    /// One host: stamps are compared as they are.
    case oneHost
    /// Two: the receiver's stamps were brought onto the sender's clock, right to within so many nanoseconds.
    case twoHosts(bound: Int64, skew: Double)
}

/// What the wire says of the logs.
public enum Verdict: String, Sendable, CaseIterable {
    case confirmed = "CONFIRMED"
    case confirmedSample = "CONFIRMED-SAMPLE"
    case contradicted = "CONTRADICTED"
    case inconclusive = "INCONCLUSIVE"

    /// 0, 0, 2, 3.
    public var exitStatus: Int32 {
        switch self {
        case .confirmed, .confirmedSample: 0
        case .contradicted: 2
        case .inconclusive: 3
        }
    }
}

/// One thing that was counted, with its worst case and its first examples.
public struct CheckCount: Sendable {
    public static let mostExamples = 20
    public private(set) var count: Int64 = 0
    /// The largest deviation, in nanoseconds, where the check is of times.
    public private(set) var worst: Int64 = 0
    public private(set) var examples: [(flow: UInt32, sequence: UInt64, deviation: Int64)] = []
    public init() {}

    mutating func note(_ flow: UInt32, _ sequence: UInt64, _ deviation: Int64 = 0) {
        count += 1
        worst = max(worst, deviation)
        if examples.count < Self.mostExamples { examples.append((flow, sequence, deviation)) }
    }
}

/// A delay between two places: how many, and its distribution.
public struct CheckDelay: Sendable {
    public var name: String
    public var count: Int64 = 0
    public var least: Int64 = 0
    public var mean = 0.0
    public var p50: Int64 = 0
    public var p90: Int64 = 0
    public var p99: Int64 = 0
    public var p999: Int64 = 0
    public var greatest: Int64 = 0
    /// How far off each may be, in nanoseconds.
    public var bound: Int64 = 0
    public init(name: String) { self.name = name }
}

/// Compares what the application logged with what taps on the wire saw, and says what follows.
///
/// Sets: what was sent must have left, but for what the queue dropped; what left must have come in, but for the path's loss;
/// what came in must have been received, but for what the socket dropped; nothing may be received that did not come in, or
/// leave without having been sent. Times: before ≤ wire out ≤ wire in ≤ kernel ≤ read, and on one host the kernel's stamp of
/// a datagram is the tap's. A capture that dropped packets confirms a sample; one that cannot be trusted confirms nothing.
public struct CrossCheck: Sendable {
    public private(set) var sent: Int64 = 0
    public private(set) var wireOut: Int64 = 0
    public private(set) var wireIn: Int64 = 0
    public private(set) var received: Int64 = 0

    /// Sent, and not seen to leave.
    public private(set) var sentOnly = CheckCount()
    /// Left, and did not come in: the path's loss.
    public private(set) var pathLost = CheckCount()
    /// Came in, and was not received.
    public private(set) var wireOnly = CheckCount()
    /// Received, and never seen to come in.
    public private(set) var receivedOnly = CheckCount()
    /// Came in after the receiver had closed its socket.
    public private(set) var cameAfterClose: Int64 = 0
    /// Seen to leave, and not in the send log.
    public private(set) var unsent = CheckCount()
    public private(set) var duplicatesOnWire = CheckCount()
    public private(set) var loggedTwice = CheckCount()
    public private(set) var lengthsDiffer = CheckCount()

    public private(set) var leftBeforeSent = CheckCount()
    public private(set) var cameBeforeLeft = CheckCount()
    public private(set) var stampedBeforeCame = CheckCount()
    public private(set) var readBeforeStamped = CheckCount()
    public private(set) var stampsEqual: Int64 = 0
    public private(set) var stampsDiffer = CheckCount()
    /// Received datagrams whose drop counter is the number of those missing before them, and others.
    public private(set) var dropsAttributed: Int64 = 0
    public private(set) var dropsUnattributed = CheckCount()
    public private(set) var reorderedOnWire: Int64 = 0
    public private(set) var delays: [CheckDelay] = []

    public private(set) var verdict = Verdict.inconclusive
    /// Why, in sentences; for ``Verdict/contradicted`` the first names what is wrong.
    public private(set) var reasons: [String] = []
    /// The share of what was sent or received that the taps saw.
    public private(set) var coverage = 0.0

    private let hasSendLog: Bool
    private let hasReceiveLog: Bool
    private let hasOut: Bool
    private let hasIn: Bool
    private var grain: Int64 = 0
    private let isOneHost: Bool
    private var closed: Int64?
    private var hasSuperOut = false
    private var hasSuperIn = false
    private var hasInferred = false

    /// - Parameters:
    ///   - clockSteps: Steps of the clock that its samples show.
    ///   - expectsSends: Whether there is a send log, even if nothing is in it; likewise `expectsReceipts`.
    ///   - doubts: What else keeps the logs from being judged.
    public init(
        _ join: DatagramJoin,
        taps: [TapReport],
        counters: CheckCounters,
        clocks: ClockRelation = .oneHost,
        clockSteps: Int = 0,
        expectsSends: Bool = false,
        expectsReceipts: Bool = false,
        doubts: [String] = []
    ) {
        hasOut = taps.contains { $0.side == .out }
        hasIn = taps.contains { $0.side == .in }
        var (hasSendLog, hasReceiveLog) = (expectsSends, expectsReceipts)
        for flow in join.flows {
            flow.forEach { _, entry in
                if entry.facts.contains(.sent) { hasSendLog = true }
                if entry.facts.contains(.received) { hasReceiveLog = true }
            }
        }
        (self.hasSendLog, self.hasReceiveLog) = (hasSendLog, hasReceiveLog)
        var bound: Int64 = 0
        if case .twoHosts(let stated, _) = clocks { bound = stated }
        isOneHost = bound == 0
        grain = taps.map(\.grain).max() ?? 0
        closed = counters.receiverClosed
        examine(join, bound: bound, isOneHost: isOneHost)
        judge(taps, counters, clocks, clockSteps, join, doubts)
    }

    // MARK: Counting

    private mutating func examine(_ join: DatagramJoin, bound: Int64, isOneHost: Bool) {
        var histograms = Histograms()
        for flow in join.flows {
            let id = flow.id
            var lastIn = Int64.min
            var arrivals: [(time: Int64, sequence: UInt64, entry: JoinedDatagram)] = []
            var mayAttribute = hasIn && hasReceiveLog
            flow.forEach { sequence, entry in
                let facts = entry.facts
                if facts.contains(.superPacket) {
                    if facts.contains(.wireOut) { hasSuperOut = true }
                    if facts.contains(.wireIn) { hasSuperIn = true }
                }
                if facts.contains(.inferred) { hasInferred = true }
                if facts.contains(.sent) { sent += 1 }
                if facts.contains(.wireOut) { wireOut += 1 }
                if facts.contains(.wireIn) { wireIn += 1 }
                if facts.contains(.received) { received += 1 }
                sets(id, sequence, entry)
                times(id, sequence, entry, bound, &histograms)
                if facts.contains(.wireIn) {
                    if entry.wireIn < lastIn { reorderedOnWire += 1 } else { lastIn = entry.wireIn }
                    // A counter of super-packets does not say which datagrams were in them.
                    if facts.contains(.superPacket) { mayAttribute = false }
                    if mayAttribute { arrivals.append((entry.wireIn, sequence, entry)) }
                }
            }
            if mayAttribute { attribute(arrivals, id) }
        }
        delays = histograms.delays(bound: bound, isOneHost: isOneHost)
    }

    private mutating func sets(_ id: UInt32, _ sequence: UInt64, _ entry: JoinedDatagram) {
        let facts = entry.facts
        if hasOut, hasSendLog {
            if facts.contains(.sent), !facts.contains(.wireOut) { sentOnly.note(id, sequence) }
            if facts.contains(.wireOut), !facts.contains(.sent) { unsent.note(id, sequence) }
        }
        if hasOut, hasIn {
            if facts.contains(.wireOut), !facts.contains(.wireIn) { pathLost.note(id, sequence) }
        }
        if hasIn, hasReceiveLog {
            if facts.contains(.wireIn), !facts.contains(.received) {
                if let closed, entry.wireIn > closed { cameAfterClose += 1 } else { wireOnly.note(id, sequence) }
            }
            if facts.contains(.received), !facts.contains(.wireIn) { receivedOnly.note(id, sequence) }
        }
        if !facts.isDisjoint(with: [.wireOutAgain, .wireInAgain]) { duplicatesOnWire.note(id, sequence) }
        if facts.contains(.sentAgain) || facts.contains(.receivedAgain) && !facts.contains(.wireInAgain) {
            loggedTwice.note(id, sequence)
        }
        if facts.contains(.lengthsDiffer) { lengthsDiffer.note(id, sequence) }
    }

    private mutating func times(
        _ id: UInt32,
        _ sequence: UInt64,
        _ entry: JoinedDatagram,
        _ bound: Int64,
        _ histograms: inout Histograms
    ) {
        let facts = entry.facts
        // The first place that knows it is on the wire stands for the sender's tap where there is none.
        if facts.isSuperset(of: [.sent, .wireOut]) {
            let delay = difference(entry.wireOut, entry.before)
            if delay < -grain { leftBeforeSent.note(id, sequence, -delay) }
            histograms.applicationToWire.record(delay)
        } else if !hasOut, facts.isSuperset(of: [.sent, .wireIn]) {
            let delay = difference(entry.wireIn, entry.before)
            if delay < -(bound + grain) { leftBeforeSent.note(id, sequence, -delay) }
            histograms.applicationToWire.record(delay)
        }
        if facts.isSuperset(of: [.wireOut, .wireIn]) {
            let delay = difference(entry.wireIn, entry.wireOut)
            if delay < -(bound + grain) { cameBeforeLeft.note(id, sequence, -delay) }
            histograms.wireToWire.record(delay)
        }
        if facts.isSuperset(of: [.wireIn, .received]), !facts.contains(.wireInAgain) {
            let delay = difference(entry.kernel, entry.wireIn)
            if delay < -grain { stampedBeforeCame.note(id, sequence, -delay) }
            if abs(delay) <= grain { stampsEqual += 1 } else { stampsDiffer.note(id, sequence, abs(delay)) }
            histograms.wireToKernel.record(delay)
        }
        if facts.contains(.received) {
            histograms.kernelToApplication.record(Int64(entry.readDelta))
            if facts.contains(.readBeforeStamp) { readBeforeStamped.note(id, sequence) }
            if facts.contains(.sent) {
                histograms.applicationToApplication.record(
                    difference(entry.kernel &+ Int64(entry.readDelta), entry.before)
                )
            }
        }
    }

    /// Whether each datagram's drop counter is the number of those that came in before it and were not received.
    private mutating func attribute(_ found: [(time: Int64, sequence: UInt64, entry: JoinedDatagram)], _ id: UInt32) {
        var arrivals = found
        if !zip(arrivals, arrivals.dropFirst()).allSatisfy({ $0.time <= $1.time }) {
            arrivals.sort { $0.time < $1.time }
        }
        var missing: UInt32 = 0
        for arrival in arrivals {
            guard arrival.entry.facts.contains(.received) else {
                missing &+= 1
                continue
            }
            guard arrival.entry.facts.contains(.hasDropCount) else { continue }
            if arrival.entry.dropped == missing {
                dropsAttributed += 1
            } else {
                dropsUnattributed.note(id, arrival.sequence, abs(Int64(arrival.entry.dropped) - Int64(missing)))
            }
        }
    }

    // MARK: Judging

    private mutating func judge(
        _ taps: [TapReport],
        _ counters: CheckCounters,
        _ clocks: ClockRelation,
        _ clockSteps: Int,
        _ join: DatagramJoin,
        _ knownDoubts: [String]
    ) {
        var wrong: [String] = []
        var doubts = knownDoubts
        var tapDropped: UInt64 = 0
        var sampled: [String] = []
        // The loopback's tap stands on both sides; it is one.
        for (index, tap) in taps.enumerated()
        where !taps[..<index].contains(where: { $0.name == tap.name && $0.delivered == tap.delivered }) {
            if !tap.sawBeginning {
                doubts.append("the tap at \(tap.name) is not shown to have been live when traffic began")
            }
            if !tap.sawEnd { doubts.append("the tap at \(tap.name) is not shown to have been live to the end") }
            if let unread = tap.unread, unread != 0 {
                doubts.append("the tap at \(tap.name) leaves \(unread) packets that the kernel gave it unaccounted for")
            }
            if tap.isCut { doubts.append("the capture of \(tap.name) is cut") }
            if !tap.isProbed, sentOnly.count + receivedOnly.count > 0 {
                doubts.append("the tap at \(tap.name) is not shown to have been live, and lacks datagrams of the logs")
            }
            if let dropped = tap.dropped, dropped > 0 {
                tapDropped = sum(tapDropped, dropped)
                sampled.append("the tap at \(tap.name) dropped \(dropped) packets")
            }
            if tap.undecoded > tap.delivered / 1_000 {
                doubts.append("\(tap.undecoded) of \(tap.delivered) packets at \(tap.name) could not be read")
            }
        }
        if join.ignoredCount > 0 {
            doubts.append(
                "there are more than \(DatagramJoin.mostFlows) flows; \(join.ignoredCount) datagrams were left out"
            )
        }
        if wireOut == 0, wireIn == 0 { doubts.append("the taps saw no datagram of these logs") }
        if sent == 0, received == 0 { doubts.append("there is no log to confirm") }
        if clockSteps > 0 {
            doubts.append("the clock was set \(clockSteps) time\(clockSteps == 1 ? "" : "s") during the run")
        }
        if case .twoHosts(let bound, let skew) = clocks {
            if bound == .max { doubts.append("the clocks of the two hosts could not be brought together") }
            if abs(skew) > 200e-6 {
                doubts.append(
                    "the two clocks differ by \(Int(max(-1e9, min(1e9, (skew * 1e6).rounded())))) ppm: one of them is being set"
                )
            }
        }

        // Sets.
        if hasInferred, receivedOnly.count > 0 {
            doubts.append(
                "the numbers in super-packets were inferred and do not fit: capture with a larger snaplen, or with 'gro: false'"
            )
        } else if receivedOnly.count > Int64(clamping: tapDropped) {
            wrong.append(
                "\(receivedOnly.count) datagrams are in the receive log and were never seen to come in"
                    + (seenLeaving(join)
                        ? ": the capture at the receiver lacks them, or the receive log invents them"
                        : ": the receive log is wrong")
            )
        }
        if unsent.count > 0 {
            wrong.append("\(unsent.count) datagrams left that are not in the send log: the send log is wrong")
        }
        judgeQueue(counters, tapDropped, &wrong, &doubts)
        judgeSocket(counters, tapDropped, &wrong, &doubts)
        if loggedTwice.count > 0 { wrong.append("\(loggedTwice.count) datagrams are logged twice and came once") }
        if lengthsDiffer.count > 0 {
            wrong.append("\(lengthsDiffer.count) datagrams have other lengths on the wire than in the logs")
        }

        // Times.
        judgeTimes(&wrong, &doubts)

        let seen = [
            hasOut && hasSendLog ? ratio(sent - sentOnly.count, sent) : 1,
            hasIn && hasReceiveLog ? ratio(received - receivedOnly.count, received) : 1,
        ]
        coverage = seen.min() ?? 0
        if wireOut == 0 && wireIn == 0 { coverage = 0 }
        if tapDropped > 0, coverage < 0.99 {
            doubts.append("the taps saw \(percent(coverage)) of the datagrams; 99 % are needed")
        }

        if !doubts.isEmpty {
            verdict = .inconclusive
            reasons = doubts + sampled
        } else if !wrong.isEmpty {
            verdict = .contradicted
            reasons = wrong
        } else if tapDropped > 0 {
            verdict = .confirmedSample
            reasons = sampled + ["\(percent(coverage)) of the datagrams were seen, and all of them agree"]
        } else {
            verdict = .confirmed
        }
    }

    /// Whether those that were received and not seen to come in were seen to leave.
    private func seenLeaving(_ join: DatagramJoin) -> Bool {
        guard hasOut, let first = receivedOnly.examples.first else { return false }
        return join.flows.first { $0.id == first.flow }?[first.sequence]?.facts.contains(.wireOut) == true
    }

    private mutating func judgeQueue(
        _ counters: CheckCounters,
        _ tapDropped: UInt64,
        _ wrong: inout [String],
        _ doubts: inout [String]
    ) {
        guard sentOnly.count > 0 || counters.queueDropped ?? 0 > 0, hasOut, hasSendLog else { return }
        guard let dropped = counters.queueDropped else {
            if sentOnly.count > Int64(clamping: tapDropped) {
                doubts.append(
                    "\(sentOnly.count) datagrams were sent and not seen to leave, and nobody counted what the queue dropped"
                )
            }
            return
        }
        // A queue counts a super-packet as one.
        if hasSuperOut, dropped > 0, sentOnly.count >= dropped, sentOnly.count / 128 <= dropped { return }
        let unexplained = difference(sentOnly.count, dropped)
        if unexplained > Int64(clamping: tapDropped) {
            wrong.append(
                "\(sentOnly.count) datagrams of the send log did not leave, and the queue dropped \(dropped): the send log is wrong"
            )
        }
    }

    private mutating func judgeSocket(
        _ counters: CheckCounters,
        _ tapDropped: UInt64,
        _ wrong: inout [String],
        _ doubts: inout [String]
    ) {
        guard hasIn, hasReceiveLog else { return }
        guard let dropped = counters.socketDropped else {
            if wireOnly.count > counters.unread {
                doubts.append(
                    "\(wireOnly.count) datagrams came in and were not received, and nobody counted what the socket dropped"
                )
            }
            return
        }
        let expected = Int64(clamping: sum(UInt64(clamping: dropped), UInt64(clamping: counters.unread)))
        let deviation = difference(wireOnly.count, expected)
        // Copies are dropped as well and are no datagram of their own; some of the unread came as the socket was closed.
        let slack = Int64(clamping: tapDropped) + duplicatesOnWire.count + min(counters.unread, cameAfterClose)
        guard deviation > 0 || -deviation > slack else { return }
        if hasSuperIn, dropped > 0 {
            // A socket, too, counts a super-packet as one.
            if deviation > 0, wireOnly.count / 128 <= expected { return }
        }
        if hasInferred {
            doubts.append(
                "the numbers in super-packets were inferred and do not fit: capture with a larger snaplen, or with 'gro: false'"
            )
            return
        }
        // With each datagram comes the counter's value: it knows which log is wrong.
        let counterAgrees = dropsUnattributed.count == 0 && dropsAttributed > 0
        let story =
            "\(wireOnly.count) datagrams came in and are not in the receive log, and the socket dropped \(expected)"
        if counterAgrees, deviation != 0 {
            wrong.append("\(story): the drop counter is wrong, each datagram's own agrees with the wire")
        } else if deviation < 0 {
            wrong.append("\(story): the receive log invents some, or the capture lacks them")
        } else {
            wrong.append(
                "\(story): the receive log is wrong"
                    + (dropsUnattributed.count > 0
                        ? ", from sequence \(dropsUnattributed.examples[0].sequence) on" : "")
            )
        }
    }

    private mutating func judgeTimes(_ wrong: inout [String], _ doubts: inout [String]) {
        func judge(_ check: CheckCount, _ words: String, _ log: String) {
            guard check.count > 0 else { return }
            // One log's times are wrong here and there; a clock that was set is wrong from then on.
            if check.count >= 10, isRun(check) {
                doubts.append(
                    "\(words) in \(check.count) datagrams without a break, by up to \(nanoseconds(check.worst)): a clock was set"
                )
            } else {
                wrong.append("\(words) in \(check.count) datagrams, by up to \(nanoseconds(check.worst)): \(log)")
            }
        }
        judge(leftBeforeSent, "the send log's time is after the wire's", "the send log is wrong")
        judge(cameBeforeLeft, "the receiver's tap is before the sender's", "one of the taps is wrong")
        judge(
            readBeforeStamped,
            "the application had it before the kernel's stamp",
            "the receive log is wrong"
        )
        judge(stampedBeforeCame, "the kernel's stamp is before the wire's", "the receive log is wrong")
        // A stamp that is not the tap's own: on one host both read the same field of the packet.
        let late = stampsDiffer.count - stampedBeforeCame.count
        if late > 0, stampsEqual > 0 {
            judge(stampsDiffer, "the kernel's stamp is not the wire's", "the receive log is wrong")
        } else if late > 0, isOneHost {
            doubts.append("no kernel stamp is the tap's own: the receive log has other times than the kernel's")
        }
    }

    /// Whether the examples follow each other without one that is right between them.
    private func isRun(_ check: CheckCount) -> Bool {
        let sequences = check.examples.map(\.sequence)
        return zip(sequences, sequences.dropFirst()).allSatisfy { $1 &- $0 <= 2 }
    }

    private func ratio(_ part: Int64, _ whole: Int64) -> Double { whole > 0 ? Double(part) / Double(whole) : 1 }
    private func percent(_ share: Double) -> String { "\(Double(Int(share * 10_000)) / 100) %" }
    private func nanoseconds(_ value: Int64) -> String { value < 10_000 ? "\(value) ns" : "\(value / 1_000) us" }
}

/// One histogram for each delay, made once.
private struct Histograms: ~Copyable {
    struct Tally: ~Copyable {
        var histogram = LogLinearHistogram()
        var count: Int64 = 0
        var sum = 0.0
        var least = Int64.max
        var greatest = Int64.min

        mutating func record(_ value: Int64) {
            histogram.record(UInt64(max(0, value)))
            count += 1
            sum += Double(value)
            least = min(least, value)
            greatest = max(greatest, value)
        }

        func delay(_ name: String, _ bound: Int64) -> CheckDelay? {
            guard count > 0 else { return nil }
            func quantile(_ fraction: Double) -> Int64 {
                max(least, min(greatest, Int64(clamping: histogram.quantile(fraction) ?? 0)))
            }
            var delay = CheckDelay(name: name)
            (delay.count, delay.least, delay.mean, delay.greatest) = (count, least, sum / Double(count), greatest)
            (delay.p50, delay.p90, delay.p99, delay.p999) = (
                quantile(0.5), quantile(0.9), quantile(0.99), quantile(0.999)
            )
            delay.bound = bound
            return delay
        }
    }
    var applicationToWire = Tally()
    var wireToWire = Tally()
    var wireToKernel = Tally()
    var kernelToApplication = Tally()
    var applicationToApplication = Tally()

    /// - Parameter bound: Between two hosts; a reading of a host's own clock is right to 100 ns.
    func delays(bound: Int64, isOneHost: Bool) -> [CheckDelay] {
        let reading: Int64 = 100
        return [
            applicationToWire.delay("app->wire", reading),
            wireToWire.delay("wire->wire", isOneHost ? 0 : bound),
            wireToKernel.delay("wire->kernel", 0),
            kernelToApplication.delay("kernel->app", reading),
            applicationToApplication.delay("app->app", isOneHost ? reading : bound),
        ].compactMap { $0 }
    }
}
