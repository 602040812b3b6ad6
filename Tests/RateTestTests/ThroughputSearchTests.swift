import PipelineCore
import RateTest
import Testing

/// A path that carries `limit` packets a second; what is above waits in a queue of `queueSeconds`, and is lost when
/// that is full. It may have bad and lucky moments, and the sender a limit of its own.
private struct Path {
    var limit: Double
    var queueSeconds = 0.0
    /// Chance of a trial to lose one packet more.
    var spurious = 0.0
    /// Chance of a trial above the limit, by no more than 10 %, to lose nothing.
    var lucky = 0.0
    var senderLimit = Double.infinity
    var tellsOffered = true
    var tellsQueue = false
    /// Whether it loses a packet with a chance that rises from none at 5 % below the limit to one at 5 % above.
    var isGradual = false
    /// Whether it carries a tenth of its limit when it is overloaded by more than a fifth.
    var collapses = false
    /// Between these rates it loses, whatever it could carry.
    var badBand = 0.0..<0.0
    /// Between these seconds of trial time it loses everything.
    var outage = 0.0..<0.0
    var random = SeededGenerator(seed: 1)
    private(set) var seconds = 0.0

    init(limit: Double) { self.limit = limit }

    mutating func run(_ trial: ThroughputSearch.Trial) -> ThroughputSearch.Outcome {
        defer { seconds += trial.seconds }
        let offered = min(trial.rate, senderLimit)
        let sent = offered * trial.seconds
        let limit = collapses && offered > limit * 1.2 ? limit / 10 : limit
        let excess = max(0, offered - limit) * trial.seconds
        let queued = min(excess, limit * queueSeconds)
        var lost = (excess - queued).rounded(.up)
        if random.happens(spurious) { lost += 1 }
        if offered > limit, offered <= limit * 1.1, random.happens(lucky) { lost = 0 }
        if isGradual { lost = random.happens((offered / limit - 0.95) * 10) ? max(lost, 1) : 0 }
        if badBand.contains(offered) { lost = max(lost, sent * 0.1) }
        if outage.contains(seconds) { lost = sent }
        return ThroughputSearch.Outcome(
            sent: Int64(sent),
            lost: Int64(lost),
            isValid: offered >= trial.rate * 0.99,
            offered: tellsOffered ? offered : nil,
            queueGrowth: tellsQueue ? queued / limit : 0
        )
    }
}

private typealias Settings = ThroughputSearch.Settings
private typealias Result = ThroughputSearch.Result

private let wide = Settings(minimum: 100, maximum: 1e7)

/// Between 1,000 and 1,000,000 packets a second, evenly by ratio.
private func someLimit(_ random: inout SeededGenerator) -> Double {
    let steps = Double.random(in: 0..<3_000, using: &random)
    return (0..<Int(steps)).reduce(1_000) { rate, _ in rate * 1.002_305_238_077_899_7 }
}

/// Runs a search to its end, and checks what every search promises.
private func search(_ path: inout Path, _ settings: Settings = wide) throws -> Result {
    var search = ThroughputSearch(settings)
    var total = 0.0
    var count = 0
    while let trial = search.nextTrial() {
        #expect(search.nextTrial() == trial)
        #expect(trial.rate >= settings.minimum && trial.rate <= settings.maximum)
        total += trial.seconds
        count += 1
        search.record(path.run(trial))
        try #require(count < 1_000)
    }
    let result = try #require(search.result)
    #expect(total <= settings.timeLimit + 1e-6)
    #expect(abs(result.seconds - total) < 1e-6)
    #expect(result.trials == count)
    for bound in [result.lowerBound, result.upperBound] {
        guard let bound else { continue }
        let load = try #require(result.loads.first { $0.rate == bound })
        let lead = abs(load.passes - load.failures)
        #expect(lead >= settings.lead || load.passes + load.failures >= settings.voteLimit)
    }
    if let low = result.lowerBound, let high = result.upperBound { #expect(low < high) }
    if result.end == .found || result.end == .senderLimited {
        let low = try #require(result.lowerBound)
        let high = try #require(result.upperBound)
        #expect((high - low) / high <= settings.precision + 1e-6)
    }
    #expect(!result.end.statement.isEmpty)
    return result
}

@Suite struct ThroughputSearchTests {
    @Test("finds a fixed limit within 1 % in no more than 15 s", arguments: 0..<200 as Range<UInt64>)
    func fixedLimit(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var path = Path(limit: someLimit(&random))
        // A bucket of up to 5 ms at the limit: a second's trial sees 0.5 % more than there is.
        path.queueSeconds = Double.random(in: 0...0.005, using: &random)
        let result = try search(&path)
        #expect(result.end == .found)
        #expect(abs(try #require(result.lowerBound) / path.limit - 1) <= 0.01)
        #expect(result.seconds <= 15)
    }

    @Test("a hint, good or bad, changes only the time", arguments: [1e2, 5e3, 49_000, 5e4, 5.2e4, 4e5, 1e9])
    func hint(hint: Double) throws {
        var path = Path(limit: 50_000)
        var settings = wide
        settings.hint = hint
        let result = try search(&path, settings)
        #expect(result.end == .found)
        #expect(abs(try #require(result.lowerBound) / path.limit - 1) <= 0.01)
        if abs(hint / path.limit - 1) < 0.05 { #expect(result.seconds <= 10) }
    }

    /// How many of the searches are off by more than 3 %, and how many ran out of time.
    private func wrong(
        _ seeds: Range<UInt64>,
        spurious: Double = 0,
        lucky: Double = 0,
        misleads: Bool = false,
        collapses: Bool = false
    ) throws -> (count: Int, unfinished: Int, meanSeconds: Double) {
        var count = 0
        var unfinished = 0
        var total = 0.0
        for seed in seeds {
            var random = SeededGenerator(seed: seed)
            var path = Path(limit: someLimit(&random))
            path.spurious = spurious
            path.lucky = lucky
            path.random = SeededGenerator(seed: seed &* 7_919 &+ 13)
            path.collapses = collapses
            var settings = wide
            if misleads { settings.hint = someLimit(&random) }
            let result = try search(&path, settings)
            if abs((result.lowerBound ?? 0) / path.limit - 1) > 0.03 { count += 1 }
            if result.end != .found { unfinished += 1 }
            total += result.seconds
        }
        return (count, unfinished, total / Double(seeds.count))
    }

    @Test("a spurious loss in one trial of ten: within 3 % in 200 of 200")
    func spuriousLosses() throws {
        let (count, unfinished, mean) = try wrong(0..<200, spurious: 0.1)
        #expect(count == 0)
        #expect(unfinished <= 2)
        #expect(mean <= 15)
    }

    @Test("a lucky pass above the limit in one trial of ten: within 3 % in 200 of 200")
    func luckyPasses() throws {
        let (count, unfinished, mean) = try wrong(0..<200, lucky: 0.1)
        #expect(count == 0)
        #expect(unfinished <= 2)
        #expect(mean <= 15)
    }

    @Test("both at once: within 3 % in 200 of 200")
    func bothNoises() throws {
        let (count, unfinished, mean) = try wrong(1_000..<1_200, spurious: 0.1, lucky: 0.1)
        #expect(count == 0)
        #expect(unfinished <= 2)
        #expect(mean <= 15)
    }

    @Test("noise and a hint that is anywhere: within 3 % in 200 of 200")
    func noiseAndMisleadingHint() throws {
        let (count, unfinished, mean) = try wrong(0..<200, spurious: 0.1, lucky: 0.1, misleads: true)
        #expect(count == 0)
        #expect(unfinished <= 5)
        #expect(mean <= 20)
    }

    @Test("noise and a path that collapses under overload: within 3 % in 200 of 200")
    func noiseAndCollapse() throws {
        let (count, unfinished, mean) = try wrong(0..<200, spurious: 0.1, lucky: 0.1, collapses: true)
        #expect(count == 0)
        #expect(unfinished <= 5)
        #expect(mean <= 20)
    }

    @Test("of 6,000 noisy searches no more than three are off by more than 3 %")
    func manyNoises() throws {
        let first = try wrong(10_000..<12_000, spurious: 0.1)
        let second = try wrong(20_000..<22_000, lucky: 0.1)
        let third = try wrong(30_000..<32_000, spurious: 0.1, lucky: 0.1)
        #expect(first.count + second.count + third.count <= 3)
    }

    @Test("where loss sets in gradually, over 10 % of the rate, the result lies there")
    func gradual() throws {
        var without = 0
        for seed in 0..<200 as Range<UInt64> {
            var path = Path(limit: 50_000)
            path.isGradual = true
            path.random = SeededGenerator(seed: seed)
            guard let bound = try search(&path).lowerBound else {
                without += 1
                continue
            }
            #expect(abs(bound / path.limit - 1) <= 0.06)
        }
        #expect(without <= 2)
    }

    @Test("a queue of 50 ms hides nothing when its growth is known, and 5 % when it is not")
    func queue() throws {
        var path = Path(limit: 20_000)
        path.queueSeconds = 0.05
        path.tellsQueue = true
        let told = try search(&path)
        #expect(told.end == .found)
        #expect(abs(try #require(told.lowerBound) / path.limit - 1) <= 0.01)
        path.tellsQueue = false
        let untold = try search(&path)
        #expect(abs(try #require(untold.lowerBound) / (path.limit * 1.05) - 1) <= 0.01)
    }

    @Test("a queue that hides a load from short trials is found out by full ones")
    func shortTrialsMislead() throws {
        var path = Path(limit: 20_000)
        path.queueSeconds = 0.2
        let result = try search(&path)
        let bound = try #require(result.lowerBound)
        #expect(bound <= path.limit * 1.2 && bound >= path.limit * 1.2 * 0.97)
    }

    @Test("loss inversion: failures that an outage left below a load that passes are measured anew")
    func outage() throws {
        for begin in stride(from: 0, to: 4, by: 0.1) {
            var path = Path(limit: 50_000)
            path.outage = begin..<begin + 0.7
            let result = try search(&path)
            #expect(result.end == .found)
            #expect(abs(try #require(result.lowerBound) / path.limit - 1) <= 0.01, "outage at \(begin)")
        }
    }

    @Test("loss inversion that stays: the result is a load that passes, and the one above it fails")
    func badBand() throws {
        for start in [100.0, 5_000, 15_000, 30_000, 49_000] {
            var path = Path(limit: 50_000)
            path.badBand = 10_000..<20_000
            var settings = wide
            settings.hint = start
            let bound = try #require(try search(&path, settings).lowerBound)
            #expect(abs(bound / 10_000 - 1) <= 0.01 || abs(bound / 50_000 - 1) <= 0.01)
        }
    }

    @Test("says when even the minimum loses")
    func minimumFails() throws {
        var path = Path(limit: 10)
        let result = try search(&path)
        #expect(result.end == .minimumFails)
        #expect(result.lowerBound == nil)
        #expect(result.upperBound == wide.minimum)
    }

    @Test("says when even the maximum passes, and needs three full trials for it")
    func maximumPasses() throws {
        var path = Path(limit: 1e9)
        let result = try search(&path)
        #expect(result.end == .maximumPasses)
        #expect(result.lowerBound == wide.maximum)
        #expect(result.upperBound == nil)
        #expect(result.loads.last?.passes == 3)
        #expect(result.seconds <= 6)
    }

    @Test("says when the sender cannot send faster", arguments: [true, false])
    func senderLimited(tellsOffered: Bool) throws {
        var path = Path(limit: 1e9)
        path.senderLimit = 500_000
        path.tellsOffered = tellsOffered
        let result = try search(&path)
        #expect(result.end == .senderLimited)
        // A trial is valid within 1 % of its rate.
        let bound = try #require(result.lowerBound)
        #expect(bound >= 0.99 * path.senderLimit && bound <= 1.011 * path.senderLimit)
    }

    @Test("says when time is up, and has then no bound that one trial decided", arguments: [0.2, 1, 2, 3, 4, 6, 8])
    func timeIsUp(limit: Double) throws {
        var path = Path(limit: 3_333)
        var settings = wide
        settings.timeLimit = limit
        let result = try search(&path, settings)
        #expect(result.end == .timeIsUp || limit == 8)
        if let bound = result.lowerBound { #expect(bound <= path.limit * 1.001) }
    }

    @Test("one trial at a load never makes it a bound")
    func noSingleTrial() {
        var search = ThroughputSearch(wide)
        while let trial = search.nextTrial() {
            search.record(.init(sent: 1_000, lost: trial.rate > 5_000 ? 1 : 0))
            for bound in [search.lowerBound, search.upperBound] {
                guard let load = search.loads.first(where: { $0.rate == bound }) else { continue }
                #expect(load.passes + load.failures >= 2)
            }
        }
        #expect(search.result?.lowerBound != nil)
    }

    @Test("a goal of 5 % finds the rate of which 5 % are lost")
    func partialDrop() throws {
        var path = Path(limit: 10_000)
        path.spurious = 0.1
        var settings = wide
        settings.goalLossRatio = 0.05
        let result = try search(&path, settings)
        #expect(abs(try #require(result.lowerBound) / (10_000 / 0.95) - 1) <= 0.01)
    }

    @Test("short and full trials of one length end as well")
    func oneLength() throws {
        var path = Path(limit: 50_000)
        var settings = wide
        settings.shortSeconds = 1
        let result = try search(&path, settings)
        #expect(abs(try #require(result.lowerBound) / path.limit - 1) <= 0.01)
    }
}

extension SeededGenerator {
    fileprivate mutating func happens(_ probability: Double) -> Bool {
        probability > 0 && Double.random(in: 0..<1, using: &self) < probability
    }
}
