import PipelineCore
import Playout
import Testing

/// Plays chunks of equal media length that come at given times, in order of time.
private func play(
    _ arrivals: [Int64],
    chunk: Int64,
    start: Int64 = 0,
    resume: Int64 = 0
) -> (summary: PlaybackSummary, margin: Int64) {
    var model = PlayoutModel(.init(start: start, resume: resume))
    var there = [Bool](repeating: false, count: arrivals.count)
    var prefix = 0
    for index in arrivals.indices.sorted(by: { (arrivals[$0], $0) < (arrivals[$1], $1) }) {
        there[index] = true
        while prefix < there.count, there[prefix] { prefix += 1 }
        model.advance(
            to: Timestamp(nanoseconds: arrivals[index]),
            playable: Int64(prefix) * chunk,
            isComplete: prefix == there.count
        )
    }
    let now = Timestamp(nanoseconds: arrivals.max() ?? 0)
    let end = model.playOut(from: now) ?? now
    let summary = PlaybackSummary(
        model.transitions,
        pressed: .zero,
        end: end,
        mediaPlayed: model.playhead(at: end)
    )
    return (summary, model.deliveryMargin)
}

@Suite("Playout model")
struct PlayoutModelTests {
    @Test("a constant rate below the bit rate stalls for (L − d)(R/r − 1), after d·R/r")
    func constantRate() {
        // L = 200 s in chunks of 2 s at R/r = 1.25: Sabre says 49.500000 s.
        let (summary, margin) = play((1...100).map { Int64($0) * 2_500_000_000 }, chunk: 2_000_000_000)
        #expect(summary.startupDelay == 2_500_000_000)
        #expect(summary.totalStallTime == 49_500_000_000)
        #expect(summary.stalls.count == 99)
        #expect(margin == 52_000_000_000)
        #expect(summary.playEnd?.nanoseconds == 252_000_000_000)
        // The conventions differ: 49.5/252, 49.5/249.5, 52.
        #expect(abs(summary.cta2066StalledPercent - 19.642857) < 1e-5)
        #expect(abs(summary.sabreRebufferRatio - 0.19642857) < 1e-7)
        #expect(abs(summary.pufferStallRatio - 0.19839679) < 1e-7)
        #expect(summary.pensieveRebufferTime == 52_000_000_000)
    }

    /// Random arrivals in random order.
    private func arrivals(_ seed: UInt64) -> [Int64] {
        var generator = SeededGenerator(seed: seed)
        var clock: Int64 = 0
        var times = (0..<60).map { _ in
            clock += Int64.random(in: 0...2_000_000_000, using: &generator)
            return clock
        }
        for index in times.indices {
            times.swapAt(index, min(times.count - 1, index + Int.random(in: 0...3, using: &generator)))
        }
        return times
    }

    @Test("the properties of the theory hold on random arrivals", arguments: 1...200)
    func properties(seed: UInt64) {
        let times = arrivals(seed)
        let chunk: Int64 = 1_000_000_000
        let media = chunk * Int64(times.count)
        let (eager, margin) = play(times, chunk: chunk)
        let prefixTimes = times.indices.map { times[0...$0].max() ?? 0 }
        let dmin = prefixTimes.enumerated().map { $0.element - Int64($0.offset) * chunk }.max() ?? 0
        #expect(margin == dmin)
        // With one chunk to start and to resume, total stall = Dmin − A₀ and play ends at Dmin + L.
        #expect(eager.totalStallTime == dmin - prefixTimes[0])
        #expect(eager.playEnd?.nanoseconds == dmin + media)

        for (start, resume) in [(1, 3), (2, 1), (5, 5), (1_000, 1)] as [(Int64, Int64)] {
            let (summary, _) = play(times, chunk: chunk, start: start * chunk, resume: resume * chunk)
            // (i) more patience after a stall never shortens the whole wait, (ii) the parts make the whole
            #expect(summary.totalStallTime >= max(0, dmin - summary.startupDelay))
            #expect(summary.playEnd?.nanoseconds == summary.startupDelay + summary.totalStallTime + media)
            // (iii) with one chunk to resume, starting later by x ≤ the stall takes exactly x off it
            if resume == 1 {
                let delay = summary.startupDelay - eager.startupDelay
                #expect(summary.totalStallTime == max(0, eager.totalStallTime - delay))
            }
            #expect(summary.stalls.count <= eager.stalls.count || resume == 1)
        }
        // (iv) a chunk that comes later never shortens the wait
        var later = times
        later[Int(seed) % later.count] += 3_000_000_000
        let (slower, _) = play(later, chunk: chunk)
        #expect(slower.startupDelay + slower.totalStallTime >= eager.startupDelay + eager.totalStallTime)
    }

    @Test("media that comes at the very instant it is needed is in time")
    func instant() {
        let (summary, _) = play([1_000, 2_000, 3_000], chunk: 1_000)
        #expect(summary.stalls.isEmpty)
        let (late, _) = play([1_000, 2_001, 3_001], chunk: 1_000)
        #expect(late.stalls.map(\.duration) == [1])
    }

    @Test(
        "what ends a stall doubles with each, up to its most: at half the bit rate a stall lasts twice as long as that"
    )
    func growingResume() {
        var model = PlayoutModel(.init(start: 0, resume: 400_000_000, mostResume: 3_000_000_000))
        // A millisecond of media every two: h ahead lasts for 2h, and h more takes 2h to come.
        for index in 1...20_000 {
            let piece = Int64(index) * 1_000_000
            model.advance(to: Timestamp(nanoseconds: piece * 2), playable: piece, isComplete: false)
        }
        let times = model.transitions.dropFirst().map(\.time.nanoseconds)
        let stalls = stride(from: 0, to: times.count - 1, by: 2).map { times[$0 + 1] - times[$0] }
        let plays = stride(from: 1, to: times.count - 1, by: 2).map { times[$0 + 1] - times[$0] }
        #expect(stalls.count == 5)
        for (found, wanted) in zip(stalls, [0.8, 1.6, 3.2, 6, 6]) {
            #expect(abs(Double(found) / 1e9 - wanted) <= 0.002)
        }
        for (found, wanted) in zip(plays, [0.8, 1.6, 3.2, 6, 6]) { #expect(abs(Double(found) / 1e9 - wanted) <= 0.002) }
    }

    @Test("the end of the file satisfies any threshold")
    func shortMovie() {
        let (summary, _) = play([5, 7], chunk: 10, start: 1_000_000)
        #expect(summary.startupDelay == 7)
        #expect(summary.stalls.isEmpty)
        #expect(summary.playEnd?.nanoseconds == 27)
    }

    @Test("media that is taken back before it is played was never there")
    func retraction() {
        var model = PlayoutModel(.init(start: 0, resume: 0))
        model.advance(to: .zero, playable: 100, isComplete: false)
        model.advance(to: Timestamp(nanoseconds: 10), playable: 50, isComplete: false)
        #expect(model.nextChange == Timestamp(nanoseconds: 51))
        #expect(model.retractionsTooLate == 0)
        model.advance(to: Timestamp(nanoseconds: 30), playable: 20, isComplete: false)
        #expect(model.playable == 30)
        #expect(model.retractionsTooLate == 1)
    }

    @Test("the closed forms of quality give their published values")
    func quality() {
        func summary(startup: Int64, stalls: [Int64], media: Int64) -> PlaybackSummary {
            var transitions = [PlayoutModel.Transition(kind: .started, time: Timestamp(nanoseconds: startup), media: 0)]
            var now = startup
            for stall in stalls {
                now += 1_000_000_000
                transitions.append(.init(kind: .stalled, time: Timestamp(nanoseconds: now), media: now - startup))
                now += stall
                transitions.append(.init(kind: .resumed, time: Timestamp(nanoseconds: now), media: now - startup))
            }
            return PlaybackSummary(
                transitions,
                pressed: .zero,
                end: Timestamp(nanoseconds: now),
                mediaPlayed: media
            )
        }
        let second: Int64 = 1_000_000_000
        #expect(abs(summary(startup: 0, stalls: [], media: second).hossfeldMOS - 5.0) < 1e-9)
        #expect(abs(summary(startup: 0, stalls: [second], media: second).hossfeldMOS - 3.991) < 1e-3)
        #expect(
            abs(summary(startup: 0, stalls: [3 * second, 3 * second, 3 * second], media: second).hossfeldMOS - 2.013)
                < 1e-3
        )
        #expect(abs(summary(startup: 0, stalls: [], media: second).mokMOS - 4.23) < 1e-9)
        // 2 s of start-up, 0.05 stalls a second of 3 s.
        #expect(abs(summary(startup: 2 * second, stalls: [3 * second], media: 20 * second).mokMOS - 2.5056) < 1e-3)
    }
}

@Suite("Stall causes")
struct StallDiagnosisTests {
    private let missing = MissingChunk(chunk: 7, path: 1, requested: .zero, firstByte: Timestamp(nanoseconds: 5))

    @Test("each cause is told from what is known")
    func causes() {
        func cause(
            _ missing: MissingChunk?,
            dead: Bool = false,
            latency: Int64 = 0,
            held: Int = 0
        ) -> StallCause {
            StallDiagnosis(
                missing: missing,
                isSourceDead: dead,
                latency: latency,
                heldByteCount: UInt64(held) * 10,
                heldChunkCount: held,
                at: Timestamp(nanoseconds: 100)
            ).cause
        }
        #expect(cause(missing) == .slowSource)
        #expect(cause(missing, dead: true, held: 3) == .deadSource)
        #expect(cause(missing, held: 1) == .reorder)
        #expect(cause(nil) == .requestLatency)
        let silent = MissingChunk(chunk: 7, path: 1, requested: .zero)
        #expect(cause(silent, latency: 60) == .requestLatency)
        #expect(cause(silent, latency: 10) == .slowSource)
    }
}

@Suite("Movie map")
struct MovieMapTests {
    @Test("a constant bit rate is computed from totals, in whole units")
    func constant() {
        let map = MovieMap.constantBitRate(byteCount: 12_500_000, bitsPerSecond: 6_000_000, unit: 125_000)
        #expect(map.playable(prefix: 124_999) == 0)
        #expect(map.playable(prefix: 125_000) == 166_666_667)
        #expect(map.playable(prefix: 375_000) == 500_000_000)
        #expect(map.duration == 16_666_666_667)
        #expect(map.bytesNeeded(for: 166_666_667) == 125_000)
        #expect(map.bytesNeeded(for: 166_666_668) == 250_000)
        #expect(map.bytesNeeded(for: .max) == 12_500_000)
    }

    @Test("there and back: the bytes that media needs are the fewest with which it can be played", arguments: 1...20)
    func inverse(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var steps: [MovieMap.Step] = []
        var (end, media): (UInt64, Int64) = (0, 0)
        for _ in 0..<50 {
            end += UInt64.random(in: 1...100, using: &generator)
            media += Int64.random(in: 1...100, using: &generator)
            steps.append(.init(end: end, media: media))
        }
        let map = MovieMap(steps: steps.shuffled(using: &generator), byteCount: end + 10, duration: media + 10)
        for media in stride(from: 0, through: map.duration, by: 7) {
            let bytes = map.bytesNeeded(for: media)
            #expect(map.playable(prefix: bytes) >= media)
            if bytes > 0 { #expect(map.playable(prefix: bytes - 1) < media) }
        }
    }
}
