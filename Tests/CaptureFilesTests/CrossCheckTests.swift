import CaptureFiles
import Testing

/// What logs and taps of a flow say, before they are brought together: a place to put faults into.
struct Scene {
    struct Sent { var sequence: UInt64; var before: Int64; var after: Int64; var length = 200 }
    struct Seen { var sequence: UInt64; var time: Int64; var length = 200; var isSuperPacket = false }
    struct Received { var sequence: UInt64; var kernel: Int64; var read: Int64; var dropped: UInt32?; var length = 200 }
    var sent: [Sent] = []
    var out: [Seen] = []
    var came: [Seen] = []
    var received: [Received] = []
    var outTap = TapReport(name: "veth0", side: .out)
    var inTap = TapReport(name: "veth1", side: .in)
    var counters = CheckCounters()
    var clocks = ClockRelation.oneHost
    var clockSteps = 0

    /// A clean run of 1,000 datagrams at 10 us, of which the receiver's socket drops every tenth from the hundredth on, and
    /// the queue the first three after the five hundredth.
    init(count: Int = 1_000, from base: UInt64 = 0, drops: Bool = true, superPackets: Int = 1) {
        var dropped: UInt32 = 0
        for index in 0..<count {
            let sequence = base + UInt64(index)
            let lead = index / superPackets * superPackets
            let before = 1_700_000_000_000_000_000 + Int64(lead) * 10_000
            sent.append(Sent(sequence: sequence, before: before, after: before + 14_000))
            if drops, (501...503).contains(index) { continue }
            out.append(Seen(sequence: sequence, time: before + 3_250, isSuperPacket: superPackets > 1))
            let time = before + 4_400
            came.append(Seen(sequence: sequence, time: time, isSuperPacket: superPackets > 1))
            if drops, index >= 100, index % 10 == 0 {
                dropped += 1
                continue
            }
            received.append(
                Received(
                    sequence: sequence,
                    kernel: time,
                    read: time + 25_000,
                    dropped: superPackets > 1 ? nil : dropped
                )
            )
        }
        counters.queueDropped = drops ? 3 : 0
        counters.socketDropped = Int64(dropped)
        settle()
    }

    /// The taps' own counts, as the kernel would have them.
    mutating func settle() {
        outTap.delivered = UInt64(out.count)
        outTap.received = UInt64(out.count)
        outTap.dropped = 0
        inTap.delivered = UInt64(came.count)
        inTap.received = UInt64(came.count)
        inTap.dropped = 0
    }

    func check(flow: UInt32 = 7) -> CrossCheck {
        var join = DatagramJoin()
        for one in sent {
            join.addSent(flow: flow, sequence: one.sequence, length: one.length, before: one.before, after: one.after)
        }
        for one in out {
            join.addWire(
                .out,
                flow: flow,
                sequence: one.sequence,
                length: one.length,
                time: one.time,
                isSuperPacket: one.isSuperPacket
            )
        }
        for one in came {
            join.addWire(
                .in,
                flow: flow,
                sequence: one.sequence,
                length: one.length,
                time: one.time,
                isSuperPacket: one.isSuperPacket
            )
        }
        for one in received {
            join.addReceived(
                flow: flow,
                sequence: one.sequence,
                length: one.length,
                kernel: one.kernel,
                read: one.read,
                dropped: one.dropped
            )
        }
        return CrossCheck(join, taps: [outTap, inTap], counters: counters, clocks: clocks, clockSteps: clockSteps)
    }
}

/// A fault, what it does to a clean scene, and the verdict that must follow.
struct Fault: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var verdict: Verdict
    /// A word of the first reason.
    var word: String
    var inject: @Sendable (inout Scene) -> Void

    init(_ title: String, _ verdict: Verdict, _ word: String = "", _ inject: @escaping @Sendable (inout Scene) -> Void)
    {
        testDescription = title
        self.verdict = verdict
        self.word = word
        self.inject = inject
    }

    static let all: [Fault] = [
        Fault("none", .confirmed) { _ in },
        Fault("the receive log lacks a record", .contradicted, "receive log is wrong") { $0.received.remove(at: 300) },
        Fault("the receive log has one that never came", .contradicted, "receive log") {
            $0.received.append(
                .init(sequence: 5_000, kernel: $0.received[10].kernel, read: $0.received[10].read, dropped: nil)
            )
        },
        Fault("the receive log has one that the socket dropped", .contradicted, "the receive log invents") {
            $0.received.append(
                .init(sequence: 990, kernel: 1_700_000_000_009_904_400, read: 1_700_000_000_009_905_000, dropped: nil)
            )
        },
        Fault("one send time is 10 us late", .contradicted, "send log is wrong") { $0.sent[40].before += 10_000 },
        Fault("the send log lacks a record", .contradicted, "send log is wrong") { $0.sent.remove(at: 40) },
        Fault("the send log has one that did not leave", .contradicted, "send log is wrong") {
            $0.sent.append(.init(sequence: 1_000, before: 1_700_000_000_010_000_000, after: 0))
        },
        Fault("the application's clock steps by 1 ms", .inconclusive, "a clock was set") { scene in
            for index in scene.sent.indices where index >= 700 { scene.sent[index].before += 1_000_000 }
        },
        Fault("the wire's clock steps by 1 ms", .inconclusive, "a clock was set") { scene in
            for index in scene.came.indices where index >= 700 { scene.came[index].time += 1_000_000 }
        },
        Fault("the wire's clock steps back by 1 ms", .inconclusive, "a clock was set") { scene in
            for index in scene.came.indices where index >= 700 { scene.came[index].time -= 1_000_000 }
        },
        Fault("the clock's samples show a step", .inconclusive, "clock was set") { $0.clockSteps = 1 },
        Fault("two sequences are swapped in the receive log", .contradicted, "the kernel's stamp") {
            let other = $0.received[20].sequence
            $0.received[20].sequence = $0.received[21].sequence
            $0.received[21].sequence = other
        },
        Fault("the receiver's tap lacks a packet and says it dropped none", .contradicted, "never seen to come in") {
            $0.came.remove(at: 201)
            $0.inTap.delivered -= 1
            $0.inTap.received = $0.inTap.delivered
        },
        Fault("the receiver's tap lacks a packet and says so", .confirmedSample, "dropped 1") {
            $0.came.remove(at: 201)
            $0.inTap.delivered -= 1
            $0.inTap.dropped = 1
        },
        Fault("the kernel gave the tap a packet that is not in the capture", .inconclusive, "unaccounted") {
            $0.inTap.received = $0.inTap.delivered + 1
        },
        Fault("the socket's counter is one too high", .contradicted, "drop counter is wrong") {
            $0.counters.socketDropped! += 1
        },
        Fault("the socket's counter is one too low", .contradicted, "drop counter is wrong") {
            $0.counters.socketDropped! -= 1
        },
        Fault("nobody read the socket's counter", .inconclusive, "nobody counted") { $0.counters.socketDropped = nil },
        Fault("the queue's counter is one too low", .contradicted, "send log is wrong") {
            $0.counters.queueDropped! -= 1
        },
        Fault("what was in the socket when it was closed is counted", .confirmed) {
            $0.counters.unread = 5
            $0.received.removeLast(5)
        },
        Fault("what comes after the receiver has closed is nobody's", .confirmed) { scene in
            scene.counters.receiverClosed = scene.came[990].time
            scene.received.removeAll { one in one.kernel > scene.came[990].time }
            scene.counters.socketDropped = Int64(scene.came[...990].count) - Int64(scene.received.count)
        },
        Fault("a queue and a socket count super-packets", .confirmed) {
            $0 = Scene(drops: false, superPackets: 50)
            $0.received.removeLast(50)
            $0.counters.socketDropped = 1
        },
        Fault("every kernel stamp is 1 ms late", .inconclusive, "other times") { scene in
            for index in scene.received.indices {
                scene.received[index].kernel += 1_000_000
                scene.received[index].read += 1_000_000
            }
        },
        Fault("one was read before the kernel had it", .contradicted, "receive log is wrong") {
            $0.received[7].read = $0.received[7].kernel - 5
        },
        Fault("a tap of another program that rounds to microseconds", .confirmed) { scene in
            scene.inTap.grain = 1_000
            for index in scene.came.indices { scene.came[index].time -= scene.came[index].time % 1_000 }
        },
        Fault("a tap without a probe that lacks a datagram", .inconclusive, "not shown to have been live") {
            $0.inTap.isProbed = false
            ($0.inTap.received, $0.inTap.dropped) = (nil, nil)
            $0.came.removeLast()
        },
        Fault("a capture that is cut", .inconclusive, "is cut") { $0.inTap.isCut = true },
        Fault("times at both ends of what there is", .contradicted) {
            $0.sent[3].before = .min + 1
            $0.sent[4].after = .max
            $0.received[5].kernel = .max
        },
        Fault("a length differs", .contradicted, "other lengths") { $0.received[5].length = 199 },
        Fault("the loopback shows each packet twice", .confirmed) { $0.came += $0.came },
        Fault("super-packets", .confirmed) { $0 = Scene(drops: false, superPackets: 50) },
        Fault("a ring that is too small", .inconclusive, "99 %") { scene in
            let all = scene.came.count
            scene.came = scene.came.enumerated().filter { $0.offset % 3 == 0 }.map(\.element)
            scene.inTap.delivered = UInt64(scene.came.count)
            scene.inTap.dropped = UInt64(all - scene.came.count)
        },
        Fault("a tap that was not live at the beginning", .inconclusive, "live") { $0.inTap.sawBeginning = false },
        Fault("a tap that was not live at the end", .inconclusive, "live") { $0.outTap.sawEnd = false },
        Fault("one packet in a hundred cannot be read", .inconclusive, "could not be read") { $0.inTap.undecoded = 10 },
        Fault("two hosts with clocks 500 ppm apart", .inconclusive, "500 ppm") {
            $0.clocks = .twoHosts(bound: 100_000, skew: 500e-6)
        },
        Fault("two hosts with clocks that fit", .confirmed) { scene in
            scene.clocks = .twoHosts(bound: 100_000, skew: 20e-6)
            for index in scene.came.indices { scene.came[index].time -= 50_000 }
            for index in scene.received.indices {
                scene.received[index].kernel -= 50_000
                scene.received[index].read -= 50_000
            }
        },
        Fault("nothing at all", .inconclusive, "no datagram") {
            ($0.sent, $0.out, $0.came, $0.received) = ([], [], [], [])
            $0.counters = CheckCounters()
            $0.settle()
        },
        Fault("no log", .inconclusive, "no log") { ($0.sent, $0.received) = ([], []) },
    ]
}

@Suite("Cross-check")
struct CrossCheckTests {
    @Test("every fault has its verdict, and the log that is wrong is named", arguments: Fault.all)
    func faults(fault: Fault) {
        var scene = Scene()
        fault.inject(&scene)
        let check = scene.check()
        #expect(check.verdict == fault.verdict, "\(check.reasons)")
        if !fault.word.isEmpty {
            #expect(check.reasons.contains { $0.contains(fault.word) }, "\(check.reasons)")
        }
        if check.verdict == .confirmed { #expect(check.reasons.isEmpty) }
    }

    @Test("the sets of a clean run add up, and every loss is attributed")
    func sets() {
        let scene = Scene()
        let check = scene.check()
        #expect((check.sent, check.wireOut, check.wireIn) == (1_000, 997, 997))
        #expect(check.sentOnly.count == 3)
        #expect(check.wireOnly.count == scene.counters.socketDropped)
        #expect(check.received + check.wireOnly.count == check.wireIn)
        #expect(check.dropsAttributed == check.received)
        #expect(check.dropsUnattributed.count == 0)
        #expect(check.stampsEqual == check.received)
        let delay = check.delays.first { $0.name == "app->wire" }
        #expect(delay?.p50 == 3_250)
        #expect(delay?.greatest == 3_250)
        #expect(check.delays.first { $0.name == "kernel->app" }?.least == 25_000)
    }

    @Test("a hundred clean runs of every kind are never contradicted")
    func clean() {
        for seed in 0..<100 {
            let scene = Scene(
                count: 200 + seed * 7,
                from: seed % 3 == 0 ? UInt64(UInt32.max) - 50 : 0,
                drops: seed % 2 == 0,
                superPackets: seed % 2 == 0 ? 1 : seed
            )
            #expect(scene.check().verdict == .confirmed, "seed \(seed): \(scene.check().reasons)")
        }
    }

    @Test("gaps that grow make no room: it is given for what is there", arguments: [false, true])
    func gaps(isReversed: Bool) {
        var join = DatagramJoin()
        var sequence: UInt64 = 0
        var sequences: [UInt64] = []
        for _ in 0..<30 {
            sequences.append(sequence)
            sequence = sequence &* 4 &+ 65_539
        }
        for one in isReversed ? sequences.reversed() : sequences {
            join.addWire(.out, flow: 1, sequence: one, length: 1, time: 1)
        }
        #expect(join.flows[0].count == Set(sequences).count)
        #expect(join.flows[0].byteCount < 1 << 20)
        // What went into the table early is the same datagram when the room reaches it.
        var late = DatagramJoin()
        for one in stride(from: UInt64(5_000), to: 9_000, by: 7) {
            late.addWire(.in, flow: 1, sequence: one, length: 1, time: 1)
        }
        late.addWire(.in, flow: 1, sequence: 0, length: 1, time: 1)
        for one in UInt64(0)..<9_000 { late.addSent(flow: 1, sequence: one, length: 1, before: 0, after: 0) }
        #expect(late.flows[0].count == 9_000)
        // The numbers' end.
        var last = DatagramJoin()
        last.addWire(.out, flow: 1, sequence: .max, length: 1, time: 1)
        last.addWire(.out, flow: 1, sequence: 0, length: 1, time: 1)
        #expect(last.flows[0].count == 2)
    }

    @Test("sequences far apart cost no more than their number, in any order")
    func sparse() {
        var join = DatagramJoin()
        let sequences: [UInt64] = [1 << 60, 5, UInt64.max, 0, 1 << 40, (1 << 60) + 1, (1 << 60) + 70_000]
        for sequence in sequences {
            join.addSent(flow: 1, sequence: sequence, length: 100, before: Int64(sequence % 1_000), after: 0)
            join.addWire(.out, flow: 1, sequence: sequence, length: 100, time: Int64(sequence % 1_000) + 5)
        }
        var seen: [UInt64] = []
        join.flows[0].forEach { sequence, entry in
            seen.append(sequence)
            #expect(entry.facts.isSuperset(of: [.sent, .wireOut]))
            #expect(entry.wireOut - entry.before == 5)
        }
        #expect(Set(seen) == Set(sequences))
        #expect(seen.count == sequences.count)
        #expect(join.flows[0].byteCount < 1 << 20)
        #expect(MemoryLayout<JoinedDatagram>.stride == 48)
    }
}
