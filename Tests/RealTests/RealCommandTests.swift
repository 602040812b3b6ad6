import Foundation
import Lab
import PipelineCore
import Testing

@Suite("Real commands", .tags(.real), .serialized)
struct RealCommandTests {
    private func run(_ arguments: [String], in folder: String) throws -> (status: CInt, output: String, errors: String)
    {
        try Program(arguments, in: folder).end()
    }

    /// A server and a client of it that will be at it for a while, started and seen to have begun.
    private func slowRun(_ scratch: Scratch) throws -> (program: Program, folder: String, server: Program) {
        try scratch.file("m.bin", byteCount: 2_000_000)
        let server = try Program(
            ["serve", scratch.path, "--tcp", "127.0.0.1:0", "--rate", "2Mbit/s", "--quiet"],
            in: scratch.path
        )
        let address = String(server.line().dropFirst(4))
        let program = try Program(
            [
                "watch", "tcp://\(address)/m.bin", "--chunk", "16KiB", "--bitrate", "2Mbit/s", "--out", "m.out",
                "--quiet", "--runs", "runs",
            ],
            in: scratch.path
        )
        let began = ContinuousClock.now
        while began.duration(to: .now) < .seconds(30) {
            let folders = (try? FileManager.default.contentsOfDirectory(atPath: scratch.path + "/runs")) ?? []
            if let folder = folders.first.map({ scratch.path + "/runs/" + $0 }),
                let table = try? ChunkTable(path: folder),
                table.rows.count >= 3
            {
                return (program, folder, server)
            }
        }
        throw StageError(.invalidInput, "the run did not begin within 30 s")
    }

    @Test("a run that was killed leaves a folder that parse and compare read")
    func killed() throws {
        let scratch = try Scratch()
        let (program, folder, server) = try slowRun(scratch)
        program.signal(SIGKILL)
        #expect(program.end().status == -SIGKILL)
        #expect(!FileManager.default.fileExists(atPath: folder + "/summary.json"))
        let parsed = try run(["parse", "bytes", folder, "-", "--interval", "100ms", "--per-source"], in: scratch.path)
        #expect(parsed.status == 0)
        #expect(parsed.output.hasPrefix("# seconds a total\n0 "))
        let compared = try run(["compare", folder], in: scratch.path)
        #expect(compared.status == 0)
        #expect(compared.output.contains("(unfinished)"))
        server.signal(SIGTERM)
        #expect(server.end().status == 0)
    }

    @Test("Ctrl-C finishes the folder and exits 130")
    func interrupted() throws {
        let scratch = try Scratch()
        let (program, folder, server) = try slowRun(scratch)
        program.signal(SIGINT)
        let (status, output, errors) = program.end()
        #expect(status == 130, "\(errors)")
        #expect(output.contains("startup s"))
        let data = try #require(FileManager.default.contents(atPath: folder + "/summary.json"))
        let summary = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
        #expect(summary["interrupted"] as? Bool == true)
        // What came stays, under a name that says that it is not whole.
        #expect(FileManager.default.fileExists(atPath: scratch.path + "/m.out.part"))
        #expect(!FileManager.default.fileExists(atPath: scratch.path + "/m.out"))
        server.signal(SIGTERM)
        #expect(server.end().status == 0)
    }

    @Test("a wrong file gives its problems and 65, wrong usage gives 64")
    func status() throws {
        let scratch = try Scratch()
        try Data("pipelines: { c: { capture: { type: movi }, sinks: [] } }\n".utf8).write(
            to: URL(filePath: scratch.path + "/bad.yaml")
        )
        let checked = try run(["check", "bad.yaml"], in: scratch.path)
        #expect(checked.status == 65)
        #expect(
            checked.errors == """
                bad.yaml:1:36: error: no capture is called 'movi'; did you mean 'movie'?
                bad.yaml:1:51: error: pipeline 'c' needs at least one sink

                """
        )
        #expect(
            try run(["check", "none.yaml"], in: scratch.path).errors
                == "none.yaml:1:1: error: the file cannot be read: No such file or directory\n"
        )
        #expect(try run(["run"], in: scratch.path).status == 64)
        #expect(try run(["stages", "pul"], in: scratch.path).errors.contains("did you mean 'pull'?"))
    }

    @Test("every example file is good, and draws as Mermaid and DOT")
    func examples() throws {
        let scratch = try Scratch()
        let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "tools/pipelines").path
        let files = try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".yaml") }
        #expect(files.count >= 3)
        for file in files {
            let checked = try run(["check", folder + "/" + file], in: scratch.path)
            #expect(checked.status == 0, "\(checked.errors)")
            #expect(try run(["graph", folder + "/" + file], in: scratch.path).output.hasPrefix("flowchart LR\n"))
            let dot = try run(["graph", folder + "/" + file, "--format", "dot"], in: scratch.path).output
            #expect(dot.hasPrefix("digraph tributary {\n") && dot.hasSuffix("}\n"))
        }
    }

    @Test("the same file runs under both drivers, and twice under virtual time gives the same log")
    func bothDrivers() throws {
        let scratch = try Scratch()
        let text = """
            run: { driver: virtual, duration: 60s, seed: 7 }
            pipelines:
              client:
                sources: [ { name: a, rate: 80Mbit/s }, { name: b, rate: 20Mbit/s } ]
                capture: { type: movie, chunks: 50, chunk: 125000B }
                stages: [ { type: pull }, { type: link } ]
                sinks: [ { type: playout, bitrate: 60Mbit/s }, { type: chunk_log } ]
            """
        try Data(text.utf8).write(to: URL(filePath: scratch.path + "/link.yaml"))
        func rows(_ arguments: [String], _ out: String) throws -> ChunkTable {
            let ended = try run(["run", "link.yaml", "--quiet", "--out", out] + arguments, in: scratch.path)
            #expect(ended.status == 0, "\(ended.errors)")
            let folder = try #require(FileManager.default.contentsOfDirectory(atPath: scratch.path + "/" + out).first)
            return try ChunkTable(path: scratch.path + "/\(out)/\(folder)")
        }
        let first = try rows([], "one")
        let second = try rows([], "two")
        #expect(first.rows == second.rows)
        #expect(first.rows.count == 50)
        #expect(try rows(["--driver", "real"], "three").rows.compactMap(\.chunk).sorted() == (0..<50).map(UInt64.init))
    }
}

extension RealCommandTests {
    @Test("an observer sees every packet of its edge, and a wrong edge is told")
    func observers() throws {
        let scratch = try Scratch()
        let text = """
            run: { driver: virtual }
            pipelines:
              client:
                sources: [ { name: a, rate: 8Mbit/s } ]
                capture: { type: movie, chunks: 3, chunk: 65536B }
                stages: [ { type: single }, { type: link } ]
                sinks: [ { type: "null" } ]
                observers: [ { type: packet_log, after: link } ]
            """
        try Data(text.utf8).write(to: URL(filePath: scratch.path + "/a.yaml"))
        let ended = try run(["run", "a.yaml", "--quiet", "--out", "out"], in: scratch.path)
        #expect(ended.status == 0, "\(ended.errors)")
        let folder = try #require(FileManager.default.contentsOfDirectory(atPath: scratch.path + "/out").first)
        let lines = try String(contentsOfFile: scratch.path + "/out/\(folder)/packets.csv", encoding: .utf8).split(
            separator: "\n"
        )
        #expect(
            lines.dropFirst().map { $0.split(separator: ",")[2] } == ["data", "done", "data", "done", "data", "done"]
        )
        #expect(lines[1] == "65536000,link,data,0,0,0,0,65536,0,0,65536000")
        try Data(text.replacing("after: link", with: "after: lnk").utf8).write(
            to: URL(filePath: scratch.path + "/b.yaml")
        )
        #expect(
            try run(["check", "b.yaml"], in: scratch.path).errors.contains(
                "'after' names no stage with an output: 'lnk'; did you mean 'link'?"
            )
        )
    }
}
