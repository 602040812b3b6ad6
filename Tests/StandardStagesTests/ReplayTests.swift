import CaptureFiles
import Foundation
import PipelineConfig
import PipelineCore
import PipelineRuntime
import StandardStages
import Testing

@Suite("Replay of a capture")
struct ReplayTests {
    /// UDP payloads of 100 bytes at 0, 1, 4 and 9 ms, to ports 7, 8, 7, 7, with something else between them.
    private func capture(_ path: String) throws {
        let writer = try PcapngWriter(path, application: "test")
        let interface = writer.add(CaptureInterface(linkType: LinkType.raw, resolution: .nanoseconds))
        for (milliseconds, port, number) in [(0, 7, 1), (1, 8, 2), (2, 0, 9), (4, 7, 3), (9, 7, 4)]
            as [(Int64, UInt8, UInt8)]
        {
            let udp: [UInt8] = [0, 1, 0, port, 0, 108, 0, 0] + [UInt8](repeating: number, count: 100)
            let bytes: [UInt8] =
                [0x45, 0, 0, 128, 0, 1, 0, 0, 64, port == 0 ? 1 : 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2] + udp
            writer.append(
                interface: interface,
                time: 1_700_000_000_000_000_000 + milliseconds * 1_000_000,
                originalLength: 128,
                bytes: bytes.span.bytes
            )
        }
        try writer.finish()
    }

    @Test(
        "payloads come at their recorded times, at a multiple of them, or at once",
        arguments: [
            ("pace: 1", [0, 1, 4, 9] as [Int64]), ("pace: 0.5", [0, 2, 8, 18]), ("pace: 0", [0, 0, 0, 0]),
            ("port: 7", [0, 4, 9]),
        ]
    )
    func times(option: String, expected: [Int64]) throws {
        let folder = FileManager.default.temporaryDirectory.path + "/tributary-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try capture(folder + "/in.pcapng")
        let text = """
            run: { driver: virtual, duration: 1s }
            pipelines:
              replay:
                capture: { type: pcap_replay, file: in.pcapng, \(option) }
                sinks: [ { type: null } ]
                observers: [ { type: packet_log } ]
            """
        var problems: [ConfigProblem] = []
        let file = RunFile(try readYAML(text, file: "replay.yaml"), registry: .standard, problems: &problems)
        #expect(problems == [])
        let plan = try #require(file?.pipelines.first)
        var surroundings = RunSurroundings(seed: 1, baseFolder: folder)
        surroundings.runFolder = folder
        let outcomes = VirtualTimeDriver().run([plan.build(surroundings)], limits: RunLimits(duration: .seconds(1)))
        #expect(outcomes[0].errors.isEmpty)
        let rows = try String(contentsOfFile: folder + "/packets.csv", encoding: .utf8).split(separator: "\n")
            .dropFirst()
            .map { $0.split(separator: ",", omittingEmptySubsequences: false) }
        #expect(rows.map { Int64($0[0]) } == expected.map { $0 * 1_000_000 })
        #expect(rows.allSatisfy { $0[7] == "100" })
    }

    @Test("a file that is no capture fails with its place")
    func noCapture() throws {
        let path = FileManager.default.temporaryDirectory.path + "/tributary-\(UUID().uuidString).pcap"
        try Data("no capture at all".utf8).write(to: URL(filePath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        let text =
            "pipelines: { replay: { capture: { type: pcap_replay, file: \"\(path)\" }, sinks: [ { type: null } ] } }"
        var problems: [ConfigProblem] = []
        let file = RunFile(try readYAML(text, file: "replay.yaml"), registry: .standard, problems: &problems)
        let plan = try #require(file?.pipelines.first)
        let outcomes = VirtualTimeDriver().run(
            [plan.build(RunSurroundings(seed: 1, baseFolder: "/"))],
            limits: RunLimits(duration: .seconds(1))
        )
        #expect(
            outcomes[0].errors.first?.message.contains("byte 0: neither pcap nor pcapng") == true,
            "\(outcomes[0].errors)"
        )
    }
}
