import Foundation
import NetworkStages
import PipelineCore
import Report
import Testing

@testable import LiveView

#if canImport(FoundationNetworking)
import FoundationNetworking
#endif

/// The servers beside a run, over HTTP, and a browser at them.
@Suite("Live view", .tags(.real), .serialized)
struct RealLiveTests {
    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    @Test(
        "a Range field asks for what RFC 9110 says",
        arguments: [
            ("bytes=0-499", MovieResponse.Part.part(0..<500)), ("bytes=500-999", .part(500..<1_000)),
            ("bytes=-500", .part(9_500..<10_000)), ("bytes=9500-", .part(9_500..<10_000)),
            ("bytes=0-0", .part(0..<1)), ("bytes=9999-99999999999999999999999", .part(9_999..<10_000)),
            ("bytes=-99999999999999999999999", .part(0..<10_000)), ("bytes=10000-", .unsatisfiable),
            ("bytes=-0", .unsatisfiable), ("bytes=500-499", .whole), ("bytes=0-1,5-6", .whole), ("lines=0-1", .whole),
            ("bytes=", .whole), ("bytes=-", .whole), ("bytes=a-b", .whole), ("bytes=1-x", .whole), ("", .whole),
        ]
    )
    func ranges(field: String, part: MovieResponse.Part) {
        #expect(MovieResponse.range(field, of: 10_000) == part)
    }

    @Test(
        "addresses: a port is on loopback, a host must be named",
        arguments: [
            ("8080", "127.0.0.1:8080"), ("0", "127.0.0.1:0"), ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:8080", "[::1]:8080"),
            ("localhost:1", "localhost:1"),
        ]
    )
    func addresses(text: String, meaning: String) { #expect(ListenAddress(text)?.description == meaning) }

    @Test("what is no address is refused", arguments: ["", "x", ":80", "70000", "::1:80", "a:b", "-1", "movie.yaml"])
    func noAddress(text: String) { #expect(ListenAddress(text) == nil) }

    private func get(
        _ url: String,
        _ fields: [String: String] = [:],
        method: String = "GET",
        body: String? = nil
    ) async throws -> (status: Int, fields: HTTPURLResponse, body: Data) {
        var request = URLRequest(url: try #require(URL(string: url)))
        request.httpMethod = method
        request.timeoutInterval = 20
        for (key, value) in fields { request.setValue(value, forHTTPHeaderField: key) }
        request.httpBody = body.map { Data($0.utf8) }
        let (data, response) = try await URLSession.shared.data(for: request)
        let reply = try #require(response as? HTTPURLResponse)
        return (reply.statusCode, reply, data)
    }

    @Test("a movie is read while it comes: what is not there is waited for, in whatever order it comes")
    func arriving() async throws {
        let scratch = try Scratch()
        let bytes = Data((0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) })
        let path = scratch.path + "/movie.mp4.part"
        #expect(FileManager.default.createFile(atPath: path, contents: Data(count: bytes.count)))
        let file = ArrivingFile(path: path)
        let files = FileBoard()
        files.post(file)
        let server = try await PlayServer(folder: scratch.path, files: files, name: "movie.mp4").serve(at: .loopback)
        func arrive(_ range: Range<Int>) throws {
            let handle = try #require(FileHandle(forWritingAtPath: file.state.path))
            try handle.seek(toOffset: UInt64(range.lowerBound))
            try handle.write(contentsOf: bytes[range])
            try handle.close()
            file.update { $0.received.insert(UInt64(range.lowerBound)..<UInt64(range.upperBound)) }
        }
        // Asked for before even the size is known.
        async let whole = get(server.url + "movie/movie.mp4")
        async let tail = get(server.url + "movie/movie.mp4", ["Range": "bytes=-1000"])
        async let middle = get(server.url + "movie/movie.mp4", ["Range": "bytes=100000-199999"])
        try arrive(250_000..<300_000)
        file.update { $0.byteCount = UInt64(bytes.count) }
        let late = try await tail
        #expect(late.status == 206 && late.body == bytes.suffix(1_000))
        #expect(late.fields.value(forHTTPHeaderField: "Content-Range") == "bytes 299000-299999/300000")
        #expect(late.fields.value(forHTTPHeaderField: "Content-Type") == "video/mp4")
        try arrive(100_000..<150_000)
        try arrive(150_000..<250_000)
        let part = try await middle
        #expect(part.status == 206 && part.body == bytes[100_000..<200_000])
        // It is renamed under a reader that has begun.
        try arrive(0..<50_000)
        try FileManager.default.moveItem(atPath: path, toPath: scratch.path + "/movie.mp4")
        file.update { $0.path = scratch.path + "/movie.mp4" }
        try arrive(50_000..<100_000)
        let all = try await whole
        #expect(all.status == 200 && all.body == bytes)
        #expect(all.fields.value(forHTTPHeaderField: "Accept-Ranges") == "bytes")
        let beyond = try await get(server.url + "movie/movie.mp4", ["Range": "bytes=300000-"])
        #expect(beyond.status == 416)
        #expect(beyond.fields.value(forHTTPHeaderField: "Content-Range") == "bytes */300000")
        let head = try await get(server.url + "movie/movie.mp4", method: "HEAD")
        #expect(head.status == 200 && head.body.isEmpty)
        #expect(head.fields.value(forHTTPHeaderField: "Content-Length") == "300000")
        await server.stop()
    }

    @Test("a movie that will not be whole ends the response short of its length")
    func broken() async throws {
        let scratch = try Scratch()
        let file = ArrivingFile(path: scratch.path + "/movie.part")
        #expect(FileManager.default.createFile(atPath: file.state.path, contents: Data(count: 1_000)))
        let files = FileBoard()
        files.post(file)
        file.update {
            $0.byteCount = 2_000
            $0.received.insert(0..<1_000)
            $0.hasEnded = true
        }
        let server = try await PlayServer(folder: scratch.path, files: files, name: "movie").serve(at: .loopback)
        await #expect(throws: (any Error).self) { try await get(server.url + "movie/movie") }
        #expect(try await get(server.url + "movie/movie", ["Range": "bytes=0-999"]).body.count == 1_000)
        await server.stop()
    }

    @Test("only who names the machine itself is answered, and only its own page may say anything")
    func guarded() async throws {
        let scratch = try Scratch()
        try #"{"origin_realtime_ns":0}"#.write(toFile: scratch.path + "/run.json", atomically: true, encoding: .utf8)
        let server = try await PlayServer(folder: scratch.path, files: FileBoard(), name: "../<x>.mp4").serve(
            at: .loopback
        )
        #expect(try await get(server.url).status == 200)
        #expect(try await get(server.url, ["Host": "evil.example"]).status == 421)
        #expect(try await get(server.url, ["Host": "evil.example:80"]).status == 421)
        #expect(try await get(server.url, ["Host": "localhost"]).status == 200)
        let own = String(server.url.dropLast())
        let line =
            #"{"t_ns":1,"type":"waiting","media_ns":2,"buffered_ns":3,"clock_error_ns":4,"page":5,"more":"</script>"}"#
        #expect(try await get(server.url + "player", method: "POST", body: line).status == 403)
        #expect(
            try await get(server.url + "player", ["Origin": "http://evil.example"], method: "POST", body: line).status
                == 403
        )
        #expect(try await get(server.url + "player", ["Origin": own], method: "POST", body: line).status == 204)
        for wrong in [
            "", "[]", #"{"type":"waiting"}"#, line.replacing("waiting", with: "hacked"),
            line.replacing(":1,", with: ":1e300,"),
        ] {
            #expect(
                try await get(server.url + "player", ["Origin": own], method: "POST", body: wrong).status == 400,
                "\(wrong)"
            )
        }
        #expect(
            try await get(
                server.url + "player",
                ["Origin": own],
                method: "POST",
                body: String(repeating: "x", count: 10_000)
            ).status == 413
        )
        let log = try String(contentsOfFile: scratch.path + "/player.jsonl", encoding: .utf8)
        #expect(log == #"{"t_ns":1,"type":"waiting","media_ns":2,"buffered_ns":3,"clock_error_ns":4,"page":5}"# + "\n")
        // The name is one part of a path, whatever the movie is called.
        #expect(try await get(server.url + "movie/..x.mp4").status == 404)
        await server.stop()
        // Another one at the same port says why not.
        let first = try await PlayServer(folder: scratch.path, files: FileBoard(), name: "x").serve(at: .loopback)
        let port = try #require(URL(string: first.url)?.port)
        let failure = await #expect(throws: LocalServer.Failure.self) {
            try await PlayServer(folder: scratch.path, files: FileBoard(), name: "x").serve(
                at: ListenAddress(host: "127.0.0.1", port: port)
            )
        }
        #expect(failure?.description == "cannot listen at 127.0.0.1:\(port): Address already in use")
        await first.stop()
    }

    @Test(
        "--live has its port behind a '=' wherever it stands, and without a page the run ends as ever",
        .enabled(if: RealReportTests.plots != nil, "needs uPlot: run tools/setup"),
        arguments: [
            (["run", "FILE", "--live=localhost:0"], "live: http://localhost:"),
            (["run", "--live=localhost:0", "FILE"], "live: http://localhost:"),
            (["run", "--live", "FILE"], "live: http://127.0.0.1:"),
            (["run", "FILE", "--live"], "live: http://127.0.0.1:"),
        ]
    )
    func option(words: [String], line: String) throws {
        let scratch = try Scratch()
        let file = Self.root.path + "/tools/pipelines/closed-form.yaml"
        let program = try Program(
            words.map { $0 == "FILE" ? file : $0 } + ["--out", scratch.path + "/runs", "-q"],
            in: Self.root.path
        )
        let (status, _, errors) = program.end()
        #expect(status == 0)
        #expect(errors.hasPrefix(line), "\(errors.prefix(200))")
    }

    @Test("a run that has no movie does not wait for a player")
    func nothingToPlay() throws {
        let scratch = try Scratch()
        let server = try Program(["serve", scratch.path, "--tcp", "127.0.0.1:0", "-q"], in: scratch.path)
        let address = String(server.line().dropFirst(4))
        let program = try Program(
            ["watch", "tcp://\(address)/movie.mp4", "--play", "0", "--runs", scratch.path + "/runs", "-q"],
            in: scratch.path
        )
        let (status, _, errors) = program.end()
        server.signal(SIGINT)
        _ = server.end()
        #expect(status == 1)
        #expect(errors.contains("movie: http://127.0.0.1:"))
        #expect(errors.contains("error: "), "\(errors)")
    }

    @Test(
        "a page loses and doubles nothing when its server is killed and begun anew; both pages become the report",
        .enabled(
            if: RealReportTests.hasBrowser && RealReportTests.plots != nil,
            "needs chromium and uPlot: run tools/setup release tests"
        )
    )
    func follow() throws {
        let (status, output) = try Network.command(
            "TRIBUTARY_UPLOT=\(Self.root.path)/.build/vendor",
            "/usr/bin/python3",
            Self.root.path + "/tools/live-check",
            "--program",
            Program.path
        )
        #expect(status == 0, "\(output.suffix(2_000))")
    }

    @Test(
        "a real player stalls when the model says so",
        .enabled(if: RealReportTests.hasBrowser, "needs chromium and ffmpeg: run tools/setup release tests")
    )
    func player() throws {
        let isLong = ProcessInfo.processInfo.environment["TRIBUTARY_LONG"] != nil
        let (status, output) = try Network.command(
            "/usr/bin/python3",
            Self.root.path + "/tools/player-check",
            "--runs",
            isLong ? "10" : "1",
            "--program",
            Program.path
        )
        #expect(status == 0, "\(output.suffix(3_000))")
    }
}
