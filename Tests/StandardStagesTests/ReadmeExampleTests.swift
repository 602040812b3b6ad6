import Foundation
// README: begin
import PipelineConfig
import PipelineCore
import PipelineRuntime
import StandardStages
// README: end
import Testing

/// How long a movie stalls over two emulated paths, in nanoseconds, to the nanosecond.
func stallTime(scheduler: String) throws -> Int64? {
    let text = """
        pipelines:
          client:
            sources: [ { name: a, rate: 8Mbit/s }, { name: b, rate: 2Mbit/s } ]
            capture: { type: movie, chunks: 100, chunk: 125000B }
            stages: [ { type: \(scheduler) }, { type: link } ]
            sinks: [ { type: playout, bitrate: 6Mbit/s, unit: 125000B, preset: eager } ]
        """
    var problems: [ConfigProblem] = []
    let root = try readYAML(text, file: "example.yaml")
    guard let file = RunFile(root, registry: .standard, driver: .virtual, problems: &problems) else {
        throw problems[0]
    }
    let lanes = file.pipelines.map { $0.build(RunSurroundings(seed: 1, baseFolder: "/")) }
    let outcomes = VirtualTimeDriver().run(lanes, limits: file.settings.limits)
    return outcomes[0].summary["stages"]?["playout"]?["stall_total_ns"]?.integer
}

@Suite("README")
struct ReadmeExampleTests {
    @Test("its example compiles, runs, and is the one above")
    func example() throws {
        #expect(try stallTime(scheduler: "earliest_delivery") == 0)
        let own = try String(contentsOf: URL(filePath: #filePath), encoding: .utf8)
        let begin = try #require(own.firstRange(of: "// README: begin\n")).upperBound
        let end = try #require(own.firstRange(of: "// README: end\n")).lowerBound
        let readme = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "README.md")
        #expect(try String(contentsOf: readme, encoding: .utf8).contains(own[begin..<end]))
    }
}
