import PipelineCore
import RateTest
import Testing

/// A path that carries `limit` and queues what is above it for `queue` nanoseconds; it may have bad and lucky moments.
private struct Path {
    var limit: Double
    var queue: Double = 50e6
    var spurious = 0.0
    var lucky = 0.0
    var senderLimit = Double.infinity
    var random: SeededGenerator

    mutating func run(_ trial: ThroughputSearch.Trial) -> ThroughputSearch.Outcome {
        let offered = min(trial.rate, senderLimit)
        var limit = limit
        if Double.random(in: 0..<1, using: &random) < lucky { limit *= 1.1 }
        let sent = offered * Double(trial.duration) / 1e9
        // What the queue takes is not lost, but delayed.
        let excess = max(0, offered - limit) * Double(trial.duration) / 1e9
        let queued = min(excess, limit * queue / 1e9)
        var lost = excess - queued
        if Double.random(in: 0..<1, using: &random) < spurious { lost += 1 }
        return ThroughputSearch.Outcome(
            sent: Int64(sent),
            lost: Int64(lost.rounded(.up)),
            offered: offered,
            received: min(offered, limit),
            queueGrowth: Int64(queued / limit * 1e9)
        )
    }
}

@Suite struct ThroughputSearchTests {
    private func search(_ path: inout Path, minimum: Double = 100, maximum: Double = 1e7, goal: Double = 0)
        -> ThroughputSearch
    {
        var settings = ThroughputSearch.Settings(minimum: minimum, maximum: maximum)
        settings.goal = goal
        var search = ThroughputSearch(settings)
        var trials = 0
        while let trial = search.nextTrial() {
            #expect(trial.rate >= minimum && trial.rate <= maximum)
            search.record(path.run(trial))
            trials += 1
            if trials > 1_000 { break }
        }
        #expect(trials <= 200)
        return search
    }

    @Test("finds a fixed limit within 1 %, in bounded time", arguments: 0..<200 as Range<UInt64>)
    func fixedLimit(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let limit = 1_000 * Double.random(in: 1...1_000, using: &random)
        var path = Path(limit: limit, random: random)
        let found = search(&path)
        #expect(found.end == .found)
        #expect(abs((found.lowerBound ?? 0) / limit - 1) <= 0.02)
        #expect(found.records.reduce(0) { $0 + $1.duration } <= 42_000_000_000)
    }

    @Test("spurious losses and lucky trials, one in ten each, do not decide", arguments: 0..<200 as Range<UInt64>)
    func noise(seed: UInt64) {
        var random = SeededGenerator(seed: seed &+ 77)
        let limit = 1_000 * Double.random(in: 1...1_000, using: &random)
        var path = Path(limit: limit, spurious: seed % 2 == 0 ? 0.1 : 0, lucky: seed % 2 == 0 ? 0 : 0.1, random: random)
        let found = search(&path)
        let bound = found.lowerBound ?? 0
        #expect(bound > 0)
        // Never a load that one lucky trial passed: at least two of its trials passed.
        #expect(found.records.filter { $0.rate == bound && $0.passed && $0.duration == 1_000_000_000 }.count >= 2)
    }

    @Test("with one bad trial in ten, nineteen searches of twenty are within 3 %")
    func accuracyUnderNoise() {
        var close = 0
        for seed in 0..<200 as Range<UInt64> {
            var random = SeededGenerator(seed: seed &+ 5_000)
            let limit = 1_000 * Double.random(in: 1...1_000, using: &random)
            var path = Path(limit: limit, spurious: 0.1, random: random)
            if abs((search(&path).lowerBound ?? 0) / limit - 1) <= 0.03 { close += 1 }
        }
        #expect(close >= 190)
    }

    @Test("says so when the minimum loses, the maximum passes, and the sender is the limit")
    func ends() {
        var slow = Path(limit: 10, random: SeededGenerator(seed: 1))
        #expect(search(&slow).end == .minimumFails)
        var fast = Path(limit: 1e9, random: SeededGenerator(seed: 1))
        #expect(search(&fast).end == .maximumPasses)
        var weak = Path(limit: 1e9, senderLimit: 5e5, random: SeededGenerator(seed: 1))
        let found = search(&weak)
        #expect(found.end == .senderLimited || found.end == .found)
        #expect(abs((found.lowerBound ?? 0) / 5e5 - 1) <= 0.03)
    }

    @Test("a goal of 5 % finds the rate of which 5 % are lost")
    func partialDrop() {
        var path = Path(limit: 10_000, queue: 0, random: SeededGenerator(seed: 3))
        let found = search(&path, goal: 0.05)
        #expect(abs((found.lowerBound ?? 0) / (10_000 / 0.95) - 1) <= 0.02)
    }
}
