import PipelineConfig
import PipelineCore
import PipelineRuntime
import StandardStages
import Testing

/// A row of the table of closed forms: 100 chunks of 1 Mbit of a movie of 6 Mbit/s, one request outstanding, no window.
///
/// Times are fractions of seconds, so that the comparison is with the exact value.
struct ClosedForm: Sendable, CustomTestStringConvertible {
    struct Fraction: Sendable {
        var over: Double
        var under: Double
        init(_ over: Double, _ under: Double = 1) {
            self.over = over
            self.under = under
        }
        /// In nanoseconds.
        var nanoseconds: Double { over * 1e9 / under }
    }
    var title: String
    var sources: String
    var scheduler: String
    var startup: Fraction
    var deliveryMargin: Fraction
    var stall: Fraction
    var finish: Fraction
    var heldChunks: Int
    /// Chunks by source.
    var chunks: [Int]

    var testDescription: String { "\(title): \(scheduler)" }

    private static let eightAndTwo = "[ { name: a, rate: 8Mbit/s, weight: 8 }, { name: b, rate: 2Mbit/s, weight: 2 } ]"
    private static let withLatency =
        "[ { name: a, rate: 8Mbit/s, latency: 50ms }, { name: b, rate: 2Mbit/s, latency: 200ms } ]"
    private static let equal = "[ { name: a, rate: 5Mbit/s }, { name: b, rate: 5Mbit/s } ]"
    private static let three = "[ { name: a, rate: 8Mbit/s }, { name: b, rate: 2Mbit/s }, { name: c, rate: 4Mbit/s } ]"

    static let rows = [
        ClosedForm(
            title: "8+2",
            sources: eightAndTwo,
            scheduler: "{ type: alternate, mode: lock_step }",
            startup: .init(1, 8),
            deliveryMargin: .init(59, 4),
            stall: .init(117, 8),
            finish: .init(125, 4),
            heldChunks: 0,
            chunks: [50, 50]
        ),
        ClosedForm(
            title: "8+2",
            sources: eightAndTwo,
            scheduler: "{ type: alternate, outstanding: 1 }",
            startup: .init(1, 8),
            deliveryMargin: .init(17, 2),
            stall: .init(67, 8),
            finish: .init(25),
            heldChunks: 37,
            chunks: [50, 50]
        ),
        ClosedForm(
            title: "8+2",
            sources: eightAndTwo,
            scheduler: "{ type: weighted, outstanding: 1 }",
            startup: .init(1, 8),
            deliveryMargin: .init(1, 6),
            stall: .init(1, 24),
            finish: .init(10),
            heldChunks: 1,
            chunks: [80, 20]
        ),
        ClosedForm(
            title: "8+2",
            sources: eightAndTwo,
            scheduler: "{ type: pull, outstanding: 1 }",
            startup: .init(1, 8),
            deliveryMargin: .init(1, 3),
            stall: .init(5, 24),
            finish: .init(10),
            heldChunks: 2,
            chunks: [80, 20]
        ),
        ClosedForm(
            title: "8+2",
            sources: eightAndTwo,
            scheduler: "{ type: earliest_delivery, outstanding: 1 }",
            startup: .init(1, 8),
            deliveryMargin: .init(1, 8),
            stall: .init(0),
            finish: .init(10),
            heldChunks: 0,
            chunks: [80, 20]
        ),
        ClosedForm(
            title: "8+2 with 50 and 200 ms",
            sources: withLatency,
            scheduler: "{ type: pull, outstanding: 1 }",
            startup: .init(7, 40),
            deliveryMargin: .init(8, 15),
            stall: .init(43, 120),
            finish: .init(14),
            heldChunks: 2,
            chunks: [80, 20]
        ),
        ClosedForm(
            title: "8+2 with 50 and 200 ms",
            sources: withLatency,
            scheduler: "{ type: earliest_delivery, outstanding: 1 }",
            startup: .init(7, 40),
            deliveryMargin: .init(1, 5),
            stall: .init(1, 40),
            finish: .init(14),
            heldChunks: 0,
            chunks: [80, 20]
        ),
        ClosedForm(
            title: "5+5",
            sources: equal,
            scheduler: "{ type: alternate, outstanding: 1 }",
            startup: .init(1, 5),
            deliveryMargin: .init(1, 5),
            stall: .init(0),
            finish: .init(10),
            heldChunks: 0,
            chunks: [50, 50]
        ),
        ClosedForm(
            title: "8+2+4",
            sources: three,
            scheduler: "{ type: alternate, outstanding: 1 }",
            startup: .init(1, 8),
            deliveryMargin: .init(1, 3),
            stall: .init(5, 24),
            finish: .init(33, 2),
            heldChunks: 34,
            chunks: [34, 33, 33]
        ),
        ClosedForm(
            title: "8+2+4",
            sources: three,
            scheduler: "{ type: pull, outstanding: 1 }",
            startup: .init(1, 8),
            deliveryMargin: .init(1, 3),
            stall: .init(5, 24),
            finish: .init(15, 2),
            heldChunks: 3,
            chunks: []
        ),
        ClosedForm(
            title: "8+2+4",
            sources: three,
            scheduler: "{ type: earliest_delivery, outstanding: 1 }",
            startup: .init(1, 8),
            deliveryMargin: .init(1, 8),
            stall: .init(0),
            finish: .init(29, 4),
            heldChunks: 0,
            chunks: []
        ),
    ]
}

@Suite("Closed forms")
struct ClosedFormTests {
    @Test("every scheduler gives the exact fractions under virtual time", arguments: ClosedForm.rows)
    func exact(row: ClosedForm) throws {
        let text = """
            run: { driver: virtual, duration: 10min }
            pipelines:
              client:
                sources: \(row.sources)
                capture: { type: movie, chunks: 100, chunk: 125000B, window: 0 }
                stages: [ \(row.scheduler), { type: link } ]
                sinks: [ { type: playout, bitrate: 6Mbit/s, unit: 125000B, preset: eager }, { type: chunk_log } ]
            """
        var problems: [ConfigProblem] = []
        let file = RunFile(
            try readYAML(text, file: "closed.yaml"),
            registry: .standard,
            problems: &problems
        )
        #expect(problems == [])
        let plan = try #require(file?.pipelines.first)
        let outcomes = VirtualTimeDriver().run(
            [plan.build(RunSurroundings(seed: 1, baseFolder: "/"))],
            limits: RunLimits(duration: .seconds(600))
        )
        let playout = try #require(outcomes[0].summary["stages"]?["playout"])

        #expect(outcomes[0].errors.isEmpty)
        for (key, expected) in [
            ("startup_delay_ns", row.startup), ("dmin_ns", row.deliveryMargin), ("stall_total_ns", row.stall),
            ("finish_ns", row.finish),
        ] {
            let value = try #require(playout[key]?.integer)
            #expect(abs(Double(value) - expected.nanoseconds) <= 1, "\(key) is \(value), not \(expected.nanoseconds)")
        }
        #expect(playout["reorder_high_water_chunks"]?.integer == Int64(row.heldChunks))
        #expect(playout["media_ns"]?.integer == 16_666_666_667)
        #expect(playout["duplicate_bytes"]?.integer == 0)
        if !row.chunks.isEmpty {
            let shares = playout["sources"]?.items.compactMap { $0["chunks"]?.integer }
            #expect(shares == row.chunks.map(Int64.init))
        }
    }

    /// Two chunks of a second each, and a player that starts with 2.5 s: it gets more than its window, or waits for ever.
    @Test("a window that holds less than the player needs to start does not stop the run")
    func smallWindow() throws {
        let text = """
            run: { driver: virtual, duration: 10min }
            pipelines:
              client:
                sources: [ { name: a, rate: 8Mbit/s } ]
                capture: { type: movie, chunks: 10, chunk: 125000B, window: 2 }
                stages: [ { type: pull }, { type: link } ]
                sinks: [ { type: playout, bitrate: 1Mbit/s, start: 2500ms }, { type: chunk_log } ]
            """
        var problems: [ConfigProblem] = []
        let file = RunFile(try readYAML(text, file: "window.yaml"), registry: .standard, problems: &problems)
        #expect(problems == [])
        let plan = try #require(file?.pipelines.first)
        let outcomes = VirtualTimeDriver().run(
            [plan.build(RunSurroundings(seed: 1, baseFolder: "/"))],
            limits: RunLimits(duration: .seconds(600))
        )
        let playout = try #require(outcomes[0].summary["stages"]?["playout"])
        // The third chunk is asked for when two are there, after 250 ms; half of it is needed.
        let startup = try #require(playout["startup_delay_ns"]?.integer)
        #expect(startup >= 312_500_000 && startup <= 375_000_000)
        #expect(playout["stall_count"]?.integer == 0)
        #expect(playout["media_played_ns"]?.integer == 10_000_000_000)
    }
}
