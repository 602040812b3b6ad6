import Delivery
import PipelineCore
import PipelineTestKit
import StreamingStages
import Testing

/// A policy's stage, fed by hand.
private func stage<Policy: ChunkPolicy>(_: Policy.Type, _ options: KeyValuePairs<String, String>, sources: Int = 2)
    -> ChunkScheduler<Policy>
{
    var reader = OptionReader(options)
    let parsed = Policy.Options(from: &reader)
    precondition(reader.problems.isEmpty)
    let names = (0..<sources).map { Source(name: "s\($0)", weight: $0 == 0 ? 5 : 1) }
    return ChunkScheduler<Policy>(options: parsed, context: StageContext(sources: names))
}

private func requests(_ count: Int) -> [PacketDescriptor] {
    (0..<count).map {
        PacketDescriptor(.request, sequence: UInt64($0), objectOffset: UInt64($0) * 1_000, byteCount: 1_000)
    }
}

private func up(_ paths: Int) -> [Report] {
    (0..<paths).map { .source(SourceReport(.up, path: UInt16($0), at: .zero)) }
}

/// Answers each request at once.
private func answer(_ packets: [PacketDescriptor], _ now: Timestamp) -> [Report] {
    packets.filter { $0.kind != .cancel }.map { .chunk(ChunkReport(.done, of: $0, at: now)) }
}

@Suite("Chunk schedulers")
struct PolicyTests {
    @Test("every policy asks for every chunk once, in its bounds, and ends")
    func contract() {
        func check(_ scheduler: some Scheduler) {
            let trace = Contract.check(
                scheduler,
                packets: requests(40),
                until: Timestamp(nanoseconds: 10_000_000_000),
                learning: up(2),
                react: answer
            )
            #expect(trace.violations.isEmpty)
            #expect(trace.passed.map(\.packet.sequence).sorted() == (0..<40).map(UInt64.init))
            #expect(trace.passed.allSatisfy { $0.packet.kind == .request && $0.packet.path < 2 })
        }
        check(stage(Single.self, [:]))
        check(stage(Alternate.self, ["mode": "lock_step"]))
        check(stage(Alternate.self, ["mode": "independent"]))
        check(stage(Weighted.self, [:]))
        check(stage(Pull.self, [:]))
        check(stage(EarliestDelivery.self, [:]))
    }

    @Test("alternate gives chunk k to source k mod N")
    func alternate() {
        let trace = Contract.check(
            stage(Alternate.self, ["mode": "lock_step"], sources: 3),
            packets: requests(9),
            until: .zero,
            learning: up(3),
            react: answer
        )
        #expect(trace.passed.map(\.packet.path) == [0, 1, 2, 0, 1, 2, 0, 1, 2])
    }

    @Test("smooth weighted round robin spreads 5:1:1 as nginx does")
    func weighted() {
        // The sequence of the algorithm's own description: a a b a c a a.
        let trace = Contract.check(
            stage(Weighted.self, ["outstanding": "64"], sources: 3),
            packets: requests(7),
            until: .zero,
            learning: up(3)
        )
        #expect(
            trace.passed.sorted { $0.packet.sequence < $1.packet.sequence }.map(\.packet.path) == [0, 0, 1, 0, 2, 0, 0]
        )
    }

    @Test("the delay of alternate stands between the end of a chunk and the next request")
    func delay() {
        let trace = Contract.check(
            stage(Alternate.self, ["mode": "lock_step", "delay": "100ms"]),
            packets: requests(3),
            until: Timestamp(nanoseconds: 1_000_000_000),
            learning: up(2),
            react: answer
        )
        #expect(trace.passed.map(\.at.nanoseconds) == [0, 100_000_000, 200_000_000])
    }

    @Test("a chunk whose source fails is asked for elsewhere")
    func failure() {
        var didFail = false
        let trace = Contract.check(
            stage(Single.self, ["source": "s0"]),
            packets: requests(1),
            until: .zero,
            learning: up(1)
        ) { packets, now in
            guard let first = packets.first, !didFail else { return answer(packets, now) }
            didFail = true
            return [.chunk(ChunkReport(.failed, of: first, at: now))]
        }
        #expect(trace.passed.map(\.packet.sequence) == [0, 0])
    }

    @Test("a source without progress becomes suspect after a second, its chunk is hedged, and the loser cancelled")
    func suspect() {
        let trace = Contract.check(
            stage(Pull.self, ["outstanding": "1"]),
            packets: requests(2),
            until: Timestamp(nanoseconds: 3_000_000_000),
            learning: up(2)
        ) { packets, now in
            // Source 1 never answers.
            answer(packets.filter { $0.path == 0 }, now)
        }
        let kinds = trace.passed.map { ($0.packet.kind, $0.packet.sequence, $0.packet.path, $0.at.nanoseconds) }
        #expect(kinds.count == 4)
        #expect(kinds[0] == (.request, 0, 0, 0))
        #expect(kinds[1] == (.request, 1, 1, 0))
        #expect(kinds[2] == (.hedge, 1, 0, 1_000_000_000))
        #expect(kinds[3] == (.cancel, 1, 1, 1_000_000_000))
        #expect(
            trace.reports.contains {
                if case .source(let report) = $0 { report.event == .suspect && report.path == 1 } else { false }
            }
        )
    }

    @Test("progress clears a suspect source")
    func recovery() {
        let scheduler = stage(Pull.self, ["outstanding": "1"])
        let trace = Contract.check(
            scheduler,
            packets: requests(3),
            until: Timestamp(nanoseconds: 1_500_000_000),
            learning: up(2)
        ) { packets, now in
            guard now.nanoseconds >= 1_000_000_000, packets.contains(where: { $0.kind == .hedge }) else { return [] }
            return [
                .path(
                    PathReport(
                        path: 1,
                        time: Timestamp(nanoseconds: now.nanoseconds + 1),
                        deliveredByteCount: 500,
                        outstandingByteCount: 500,
                        outstandingRequestCount: 1,
                        rate: 0,
                        latency: 0,
                        lastProgress: Timestamp(nanoseconds: now.nanoseconds + 1)
                    )
                )
            ]
        }
        // Both were silent for a second; one has answered.
        #expect(
            trace.reports.count { if case .source(let report) = $0 { report.event == .suspect } else { false } } == 2
        )
    }

    @Test("single refuses a source that is not there, and says who is")
    func unknownSource() {
        var reader = OptionReader(["source": "z"])
        let problems = Single.problems(of: Single.Options(from: &reader), with: [Source(name: "a"), Source(name: "b")])
        #expect(problems == ["no source is called 'z'; known: a, b"])
    }
}
