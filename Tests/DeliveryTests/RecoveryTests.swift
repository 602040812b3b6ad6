import Delivery
import PipelineCore
import Testing

@Suite("Loss recovery")
struct RecoveryTests {
    @Test("after DONE and a moment for what was overtaken, what is missing is asked for")
    func done() {
        var recovery = RangeRecovery()
        recovery.requested(1, at: .zero)
        recovery.heard(at: Timestamp(nanoseconds: 1_000_000))
        recovery.finished(1, at: Timestamp(nanoseconds: 2_000_000))
        #expect(recovery.nextTimer == Timestamp(nanoseconds: 7_000_000))
        let holds1 = recovery.due(at: Timestamp(nanoseconds: 6_999_999)).isEmpty
        #expect(holds1)
        let holds2 = recovery.due(at: Timestamp(nanoseconds: 7_000_000)) == [1]
        #expect(holds2)
        recovery.closed(1)
        #expect(recovery.nextTimer == nil)
    }

    @Test("silence makes everything due, and doubles the limit up to two seconds")
    func silence() {
        var recovery = RangeRecovery()
        recovery.requested(1, at: .zero)
        recovery.requested(2, at: .zero)
        var times: [Int64] = []
        var now = Timestamp.zero
        for _ in 0..<5 {
            now = recovery.nextTimer ?? now
            times.append(now.nanoseconds / 1_000_000)
            let holds3 = recovery.due(at: now) == [1, 2]
            #expect(holds3)
        }
        #expect(times == [300, 900, 2_100, 4_100, 6_100])
    }

    @Test("a slow pacer is no silence: the limit follows the gaps between arrivals")
    func slowPacer() {
        var recovery = RangeRecovery()
        recovery.requested(1, at: .zero)
        for step in 1...200 as ClosedRange<Int64> {
            let now = Timestamp(nanoseconds: step * 200_000_000)
            let due = recovery.due(at: now)
            if step > 20 { #expect(due.isEmpty) }
            recovery.heard(at: now)
        }
    }

    @Test("a lossy path delivers every byte, and nothing that is there is asked for", arguments: 1...20)
    func lossyPath(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var recovery = RangeRecovery()
        var received = ByteRangeSet()
        let whole = 0..<UInt64(100_000)
        var now = Timestamp.zero
        var asks = [[whole]]
        recovery.requested(1, at: now)
        var rounds = 0
        while let ranges = asks.popLast() {
            rounds += 1
            for range in ranges {
                for offset in stride(from: range.lowerBound, to: range.upperBound, by: 1_000) {
                    now.nanoseconds += 10_000
                    guard Int.random(in: 0..<3, using: &generator) > 0 else { continue }
                    let holds4 = received.insert(offset..<min(offset + 1_000, range.upperBound)) > 0
                    #expect(holds4)
                    recovery.heard(at: now)
                }
            }
            // DONE is lost as often as data.
            if Int.random(in: 0..<3, using: &generator) > 0 { recovery.finished(1, at: now) }
            guard !received.contains(whole) else { break }
            now = max(now, recovery.nextTimer ?? now)
            let holds5 = recovery.due(at: now) == [1]
            #expect(holds5)
            asks.append(received.missing(in: whole))
            if rounds > 100 { break }
        }
        #expect(received.contains(whole))
    }
}

@Suite("Token bucket")
struct TokenBucketTests {
    @Test(
        "sends at its rate exactly, from totals",
        arguments: [(300_000, 1_168), (8_000_000, 4_096), (7, 1)] as [(UInt64, UInt64)]
    )
    func rate(bits: UInt64, size: UInt64) {
        var bucket = TokenBucket(rate: BitRate(bitsPerSecond: bits), burst: size)
        var now = Timestamp.zero
        for _ in 0..<10_000 {
            now = max(now, bucket.earliest(for: size, at: now))
            bucket.sent(size, at: now)
        }
        // The first goes at once; 9,999 follow at their times.
        #expect(now.nanoseconds == BitRate(bitsPerSecond: bits).nanoseconds(for: size * 9_999))
    }

    @Test("after a pause at most a burst goes at once")
    func burst() {
        var bucket = TokenBucket(rate: .megabitsPerSecond(8), burst: 4_000)
        var sent = 0
        let now = Timestamp(nanoseconds: 5_000_000_000)
        while bucket.earliest(for: 1_000, at: now) <= now {
            bucket.sent(1_000, at: now)
            sent += 1
        }
        #expect(sent == 4)
        let holds6 = bucket.earliest(for: 1_000, at: now).nanoseconds == now.nanoseconds + 1_000_000
        #expect(holds6)
    }
}

@Suite("Source estimate")
struct SourceEstimateTests {
    @Test("finds a constant rate and latency, and does not blame a source for not being asked")
    func constant() {
        var estimate = SourceEstimate()
        var now: Int64 = 0
        for _ in 0..<20 {
            estimate.requested(at: Timestamp(nanoseconds: now))
            now += 50_000_000
            for _ in 0..<100 {
                estimate.received(1_250, at: Timestamp(nanoseconds: now))
                now += 1_000_000
            }
            estimate.completed(at: Timestamp(nanoseconds: now))
            now += 3_000_000_000
        }
        #expect(abs(estimate.rate - 10_000_000) < 100_000)
        #expect(estimate.latency == 50_000_000)
    }

    @Test("a trickle of a byte a second is no progress")
    func trickle() {
        var estimate = SourceEstimate()
        estimate.requested(at: .zero)
        for second in 1...100 as ClosedRange<Int64> {
            estimate.received(1, at: Timestamp(nanoseconds: second * 1_000_000_000))
        }
        #expect(estimate.lastProgress == .zero)
    }
}

extension TokenBucketTests {
    @Test("a sender that is woken late catches up, and the average rate stays exact")
    func late() {
        var bucket = TokenBucket(rate: .megabitsPerSecond(8), burst: 1_000)
        var generator = SeededGenerator(seed: 1)
        var now = Timestamp.zero
        var last = Timestamp.zero
        for _ in 0..<10_000 {
            let earliest = bucket.earliest(for: 1_000, at: now)
            if earliest > now {
                now = Timestamp(nanoseconds: earliest.nanoseconds + Int64.random(in: 0...9_000_000, using: &generator))
            }
            last = max(last, now)
            bucket.sent(1_000, at: now)
        }
        #expect(abs(last.nanoseconds - 9_999_000_000) <= 9_000_000)
    }
}
