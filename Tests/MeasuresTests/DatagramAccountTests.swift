import Measures
import PipelineCore
import Testing

@Suite struct DatagramAccountTests {
    private struct Sent {
        var sequence: UInt64
        var time: Int64
    }

    @Test(
        "sent = received + lost in every interval and in all, whatever is lost, doubled and displaced",
        arguments: 0..<30 as Range<UInt64>
    )
    func exactness(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let begin: Int64 = 1_000_000
        var departures = DepartureAccount(begin: begin, intervalLength: 1_000)
        var account = DatagramAccount(begin: begin, intervalLength: 1_000)
        var onTheWay: [(arrival: Int64, sent: Sent)] = []
        var lost: [Int: Int64] = [:]
        var lostInWarmUp: Int64 = 0
        var copies: Int64 = 0
        var time = begin - 2_000
        for sequence in 0..<UInt64(5_000) {
            time += Int64.random(in: 0...4, using: &random)
            var one = IntervalDepartures()
            one.sent = 1
            one.byteCount = 100
            departures.add(one, sentAt: time)
            if Int.random(in: 0..<10, using: &random) == 0 {
                if time < begin { lostInWarmUp += 1 } else { lost[Int((time - begin) / 1_000), default: 0] += 1 }
                continue
            }
            for copy in 0..<(Int.random(in: 0..<20, using: &random) == 0 ? 2 : 1) {
                copies += Int64(copy)
                let delay = Int64.random(in: 50...(Bool.random(using: &random) ? 60 : 3_000), using: &random)
                onTheWay.append((time + delay, Sent(sequence: sequence, time: time)))
            }
        }
        onTheWay.sort { $0.arrival < $1.arrival }
        for (arrival, sent) in onTheWay {
            account.receive(sequence: sent.sequence, sent: sent.time, arrived: arrival, byteCount: 100)
        }
        account.settle()
        #expect(account.intervals.count == departures.intervals.count)
        for (index, interval) in account.intervals.enumerated() {
            #expect(departures.intervals[index].sent == interval.counts.received + lost[index, default: 0])
            #expect(interval.counts.byteCount == interval.counts.received * 100)
        }
        #expect(departures.warmUp.sent == account.warmUp.received + lostInWarmUp)
        #expect(account.total.duplicated + account.warmUp.duplicated == copies)
        #expect(account.total.received == departures.total.sent - lost.values.reduce(0, +))
    }

    @Test("delays, their variation and the jitter of a hand-made trace")
    func handMade() {
        var account = DatagramAccount(begin: nil, intervalLength: 1_000_000)
        // Delays 100, 150, 120, 200: differences 50, 30, 80.
        for (sequence, delay) in [100, 150, 120, 200].enumerated() {
            let sent = Int64(sequence) * 1_000
            account.receive(sequence: UInt64(sequence), sent: sent, arrived: sent + Int64(delay), byteCount: 64)
        }
        account.settle()
        let delay = account.delayQuantiles
        #expect(delay.least == 100 && delay.p50 == 120 && delay.greatest == 200)
        #expect(delay.aboveLeast.greatest == 100)
        let variation = account.variationQuantiles
        #expect(variation.least == 30 && variation.p50 == 50 && variation.greatest == 80)
        // A.8 by hand: 0+50-0=50; 50+30-3=77; 77+80-5=152; 152>>4=9.
        #expect(account.jitter == 9)
    }

    @Test("each interval has the delays of its own datagrams, and settling twice changes nothing")
    func intervalDelays() {
        var account = DatagramAccount(begin: 0, intervalLength: 1_000)
        // Three intervals of ten datagrams, with delays of 10, 20 and 30 and one of 5 at the head of each.
        for sequence in 0..<30 as Range<Int64> {
            let delay = sequence % 10 == 0 ? 5 : 10 * (sequence / 10 + 1)
            account.receive(
                sequence: UInt64(sequence),
                sent: sequence * 100,
                arrived: sequence * 100 + delay,
                byteCount: 32
            )
        }
        account.settle()
        account.settle()
        #expect(account.intervals.map(\.delay.least) == [5, 5, 5])
        #expect(account.intervals.map(\.delay.p50) == [10, 20, 30])
        #expect(account.intervals.map(\.delay.greatest) == [10, 20, 30])
        let all = account.delayQuantiles
        #expect(all.least == 5 && all.p50 == 20 && all.greatest == 30)
    }

    @Test("damaged times and numbers trap nowhere", arguments: 0..<20 as Range<UInt64>)
    func hostile(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var account = DatagramAccount(begin: seed % 2 == 0 ? nil : 5_000, intervalLength: 1_000, intervalLimit: 50)
        let odd: [Int64] = [.min, .max, 0, -1, 1, .min + 1, .max - 1]
        for _ in 0..<5_000 {
            let sequence =
                UInt64(bitPattern: odd.randomElement(using: &random)!) &+ UInt64.random(in: 0...70, using: &random)
            account.receive(
                sequence: sequence,
                sent: odd.randomElement(using: &random)! &+ Int64.random(in: 0...5_000, using: &random),
                arrived: odd.randomElement(using: &random)!,
                byteCount: 32
            )
        }
        account.settle()
        let total = account.total, warmUp = account.warmUp
        let all = [total, warmUp].reduce(0) { $0 + $1.received + $1.duplicated + $1.late }
        #expect(all == 5_000)
        #expect(account.intervals.count <= 50)
    }
}
