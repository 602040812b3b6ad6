import Measures
import PipelineCore
import RateTest
import Testing

/// A bottleneck with a drop-tail queue, driven at the search's rate in steps of 50 ms.
private struct Bottleneck {
    var limit: Double
    var queueSeconds = 0.1
    var randomLoss = 0.0
    var random = SeededGenerator(seed: 9)
    private var queued = 0.0
    private var carriedInAll = 0.0
    private var droppedInAll = 0.0
    private var lostAtRandom: Int64 = 0
    private var status = FlowStatus()
    private let packetBits = 1_228.0 * 8

    init(limit: Double, randomLoss: Double = 0) {
        self.limit = limit
        self.randomLoss = randomLoss
    }

    mutating func step(_ rate: Double) -> FlowStatus {
        let offered = rate * 0.05
        let before = queued / limit
        queued += offered
        let carried = min(queued, limit * 0.05)
        queued -= carried
        let dropped = max(0, queued - limit * queueSeconds)
        queued -= dropped
        // Whole packets of what has passed in all, so that nothing is rounded away.
        carriedInAll += carried
        droppedInAll += dropped
        let last = status.received
        if Double.random(in: 0..<1, using: &random) < randomLoss * carried / packetBits { lostAtRandom += 1 }
        status.time += 50_000_000
        status.received = max(last, Int64(carriedInAll / packetBits) - lostAtRandom)
        status.nextExpected = status.received + lostAtRandom + Int64(droppedInAll / packetBits)
        status.leastDelay = 5_000_000 + Int64(min(before, queued / limit) * 1e9)
        status.greatestDelay = 5_000_000 + Int64(max(before, queued / limit) * 1e9)
        return status
    }
}

@Suite struct CapacitySearchTests {
    @Test(
        "finds a bottleneck within 3 % in ten seconds",
        arguments: [5e6, 20e6, 200e6, 950e6],
        CapacitySearch.Algorithm.allCases
    )
    func bottleneck(limit: Double, algorithm: CapacitySearch.Algorithm) {
        var search = CapacitySearch(algorithm: algorithm, packetByteCount: 1_228)
        var path = Bottleneck(limit: limit)
        for _ in 0..<201 { search.take(path.step(search.rate)) }
        #expect(abs((search.maximum?.bitsPerSecond ?? 0) / limit - 1) <= 0.03)
        #expect(search.subIntervals.count >= 9)
    }

    @Test("one lost in ten thousand does not hold a fast path down", arguments: CapacitySearch.Algorithm.allCases)
    func randomLoss(algorithm: CapacitySearch.Algorithm) {
        var search = CapacitySearch(algorithm: algorithm, packetByteCount: 1_228)
        var path = Bottleneck(limit: 500e6, randomLoss: 0.0001)
        for _ in 0..<201 { search.take(path.step(search.rate)) }
        #expect(abs((search.maximum?.bitsPerSecond ?? 0) / 500e6 - 1) <= 0.03)
    }

    @Test("type C rises fast again after a retreat, type B does not")
    func typesDiffer() {
        func rows(_ algorithm: CapacitySearch.Algorithm) -> Int {
            var search = CapacitySearch(algorithm: algorithm, packetByteCount: 1_228)
            var narrow = Bottleneck(limit: 50e6)
            for _ in 0..<40 { search.take(narrow.step(search.rate)) }
            // The path becomes wide.
            var status = narrow.step(0)
            for _ in 0..<100 {
                status.time += 50_000_000
                status.received += 1_000
                status.nextExpected += 1_000
                status.leastDelay = 5_000_000
                status.greatestDelay = 5_000_000
                search.take(status)
            }
            return search.row
        }
        #expect(rows(.b) < 250)
        #expect(rows(.c) > 500)
    }

    @Test("silence is an impairment, and the rate never leaves the table")
    func silence() {
        var search = CapacitySearch(algorithm: .c, packetByteCount: 1_228)
        for _ in 0..<50 { search.take(FlowStatus()) }
        #expect(search.row == 0)
        var status = FlowStatus()
        for _ in 0..<5_000 {
            status.time += 50_000_000
            status.received += 10
            status.nextExpected += 10
            search.take(status)
        }
        #expect(search.row == CapacitySearch.table.count - 1)
        #expect(search.rate == 100e9)
    }
}
