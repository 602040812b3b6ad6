import ArgumentParser
import Lab
import Measures
import PipelineConfig
import PipelineCore
import PipelineRuntime

/// Measurements that need to be inside the process; `tools/bench` calls them.
struct Bench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure the program itself.",
        shouldDisplay: false,
        subcommands: [Virtual.self, UDPSend.self, UDPReceive.self, WirePackets.self]
    )

    struct Virtual: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "A movie of 600 chunks over two sources under virtual time."
        )
        @Option(help: "Scheduler.") var scheduler = "earliest_delivery"
        @Option(help: "Runs.") var runs = 21

        func run() throws {
            guard runs > 0 else { throw ValidationError("--runs must be 1 or more") }
            let file = try RunFile(
                composed: """
                    run: { driver: virtual, duration: 1h }
                    pipelines:
                      client:
                        sources: [ { name: a, rate: 8Mbit/s }, { name: b, rate: 2Mbit/s } ]
                        capture: { type: movie, chunks: 600, chunk: 125000B }
                        stages: [ { type: \(scheduler) }, { type: link } ]
                        sinks: [ { type: playout, bitrate: 6Mbit/s, unit: 125000B }, { type: chunk_log } ]
                    """,
                name: "bench"
            )
            var times: [Double] = []
            for _ in 0..<runs {
                let began = ContinuousClock.now
                let outcomes = VirtualTimeDriver().run(
                    file.pipelines.map { $0.build(RunSurroundings(seed: 1, baseFolder: "/")) },
                    limits: file.settings.limits
                )
                let elapsed = began.duration(to: .now)
                guard outcomes.allSatisfy({ $0.errors.isEmpty }) else { throw ExitCode(1) }
                times.append(Double(elapsed.components.attoseconds) / 1e15 + Double(elapsed.components.seconds) * 1e3)
            }
            Terminal.result(
                "600 chunks, two sources, \(scheduler): median \(decimal(median(times) ?? 0, 2)) ms, "
                    + "least \(decimal(times.min() ?? 0, 2)) ms of \(runs) runs"
            )
        }
    }
}
