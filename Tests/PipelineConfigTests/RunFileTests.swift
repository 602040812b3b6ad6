import PipelineConfig
import PipelineCore
import StandardStages
import Testing

@Suite("Configuration file")
struct RunFileTests {
    private func problems(_ text: String, driver: DriverKind? = nil) throws -> [String] {
        var problems: [ConfigProblem] = []
        let file = RunFile(
            try readYAML(text, file: "lab.yaml"),
            registry: .standard,
            driver: driver,
            problems: &problems
        )
        #expect((file == nil) == !problems.isEmpty)
        return problems.map(\.description)
    }

    @Test("all problems come at once, each where it is, in order")
    func together() throws {
        let found = try problems(
            """
            run: { driver: virtuel, duration: 60 }
            pipelines:
              client:
                sources:
                  - { name: a, rate: 8Mbit, wieght: 3 }
                capture: { type: movi, chunks: 10 }
                stages:
                  - { type: weighted, outstanding: 0 }
                  - { type: link, peice: 1KiB }
                  - { type: playout }
                sink:
                  - { type: playout, preset: exoplayer }
            """
        )
        #expect(
            found == [
                "lab.yaml:1:16: error: 'driver': expected one of real, virtual (did you mean 'virtual'?), found 'virtuel'",
                "lab.yaml:1:35: error: 'duration': expected a duration with its unit, such as 250ms or 2s, found '60'",
                "lab.yaml:4:5: error: pipeline 'client' has no 'sinks'",
                "lab.yaml:5:26: error: 'rate': expected a rate with its unit, such as 800Mbit/s, found '8Mbit'",
                "lab.yaml:5:33: error: unknown option 'wieght'; did you mean 'weight'?",
                "lab.yaml:6:22: error: no capture is called 'movi'; did you mean 'movie'?",
                "lab.yaml:8:40: error: 'outstanding' must be 1 to 64, found 0",
                "lab.yaml:9:9: error: source 'a' needs a 'rate' for 'link' to emulate it",
                "lab.yaml:9:23: error: unknown option 'peice'; did you mean 'piece'?",
                "lab.yaml:10:17: error: 'playout' is a sink; here stands a scheduler or transport",
                "lab.yaml:11:5: error: unknown key 'sink' in pipeline 'client'; did you mean 'sinks'?",
            ]
        )
    }

    @Test("pipelines are checked together: ports, links, cycles, time")
    func across() throws {
        func server(_ name: String, _ listen: String, more: String = "") -> String {
            """
              \(name):
                capture: { type: tcp_serve, directory: ., listen: \"\(listen)\" }
                sinks: [ { type: reply } ]
            \(more)
            """
        }
        func client(_ url: String) -> String {
            """
              client:
                sources: [ { name: a, url: "\(url)" } ]
                capture: { type: movie }
                stages: [ { type: single }, { type: fetch } ]
                sinks: [ { type: "null" } ]

            """
        }
        #expect(
            try problems("pipelines:\n" + server("a", "127.0.0.1:5000") + server("b", "127.0.0.1:5000")) == [
                "lab.yaml:6:14: error: listens at tcp 127.0.0.1:5000, as does the stage at 3:14"
            ]
        )
        #expect(try problems("pipelines:\n" + server("a", "127.0.0.1:0") + server("b", "127.0.0.1:0")) == [])
        #expect(
            try problems("pipelines:\n" + client("tcp://@srv/x") + server("serv", "127.0.0.1:0")) == [
                "lab.yaml:3:16: error: no pipeline is called 'srv'; did you mean 'serv'?"
            ]
        )
        #expect(
            try problems("pipelines:\n" + client("udp://@serv/x") + server("serv", "127.0.0.1:0")) == [
                "lab.yaml:3:16: error: pipeline 'serv' does not listen for udp"
            ]
        )
        #expect(
            try problems("pipelines:\n" + client("ftp://host:1/x")) == [
                "lab.yaml:5:33: error: source 'a': 'ftp://host:1/x': unknown scheme 'ftp'; expected tcp://HOST:PORT/OBJECT or udp://HOST:PORT/OBJECT"
            ]
        )
        #expect(
            try problems("pipelines:\n" + client("tcp://@client/x")).contains {
                $0.contains("the links between pipelines form a cycle: client → client")
            }
        )
        #expect(
            try problems("pipelines:\n" + client("tcp://h:1/x"), driver: .virtual) == [
                "lab.yaml:5:33: error: 'fetch' needs sockets and real time; the driver is virtual"
            ]
        )
    }

    @Test("a stage that needs bytes does not stand behind one that gives sizes only")
    func bytes() throws {
        let found = try problems(
            """
            pipelines:
              client:
                sources: [ { name: a, rate: 1Mbit/s } ]
                capture: { type: movie, chunks: 1 }
                stages: [ { type: single }, { type: link } ]
                sinks: [ { type: file, path: x } ]
            """
        )
        #expect(found == ["lab.yaml:6:14: error: 'file' needs bytes, and 'link' before it gives only sizes"])
    }

    @Test(
        "a broken file is a problem with a position",
        arguments: [
            ("pipelines: {client: [", 1), ("run: {}\nrun: {}", 2), ("a: b: c", 1), ("", 1), ("pipelines:\n\t- x", 2),
        ]
    )
    func broken(text: String, line: Int) {
        do throws(ConfigProblem) {
            var problems: [ConfigProblem] = []
            let node = try readYAML(text, file: "lab.yaml")
            _ = RunFile(node, registry: .standard, problems: &problems)
            Issue.record("expected a problem, found \(problems)")
        } catch {
            #expect(error.mark.file == "lab.yaml")
            #expect(abs(error.mark.line - line) <= 1)
        }
    }

    @Test("every stage describes its options, and reading nothing gives no problem")
    func descriptions() {
        let all = StageRegistry.standard.descriptions
        #expect(all.count >= 16)
        // An observer may have the name of a stage that does the same in the flow.
        let observers = all.filter { $0.kind == .observer }
        #expect(Set(observers.map(\.typeName)).count == observers.count)
        #expect(
            Set(all.map(\.typeName)).subtracting(observers.map(\.typeName)).count >= all.count - observers.count - 1
        )
        #expect(Set(all.map { "\($0.kind) \($0.typeName)" }).count == all.count)
        #expect(all.allSatisfy { !$0.purpose.isEmpty })
        #expect(all.first { $0.typeName == "pacer" }?.options.map(\.key) == ["rate", "burst", "slack"])
    }
}
