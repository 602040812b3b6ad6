import Foundation
import Lab
import Measures
import PipelineConfig
import PipelineCore
import PipelineRuntime
import Report
import StandardStages
import Testing

/// The page: what is in the file, and what it does in a browser.
@Suite("Report", .tags(.real), .serialized)
struct RealReportTests {
    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    static let plots: PlotLibrary? = {
        setenv("TRIBUTARY_UPLOT", root.appending(path: ".build/vendor").path, 0)
        return try? PlotLibrary()
    }()
    static let hasBrowser = [
        "/usr/bin/chromium", "/usr/bin/chromedriver", "/usr/bin/ffmpeg",
        "/usr/lib/python3/dist-packages/selenium/__init__.py",
    ]
    .allSatisfy { FileManager.default.fileExists(atPath: $0) }

    /// A virtual run of a movie of 12 s, into a folder; from a alone it stalls, from both it does not.
    private func run(_ folder: String, movie: String, scheduler: String, arm: String, sources: String = "a")
        async throws
    {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let size = (try FileManager.default.attributesOfItem(atPath: movie)[.size] as? NSNumber)?.intValue ?? 0
        // 70 and 60 % of what the movie needs.
        let (a, b) = (size * 8 / 12 * 7 / 10, size * 8 / 12 * 6 / 10)
        let text = """
            run: { driver: virtual, duration: 10min }
            pipelines:
              client:
                sources: [ { name: \(SummaryValue.quoted(sources)), rate: \(a)bit/s }, { name: b, rate: \(b)bit/s } ]
                capture: { type: movie, file: \(movie), chunk: 32KiB }
                stages: [ \(scheduler), { type: link } ]
                sinks: [ { type: playout, start: 500ms, resume: 900ms, bitrate: \(size * 8 / 12)bit/s }, { type: chunk_log } ]
            """
        var problems: [ConfigProblem] = []
        let file = RunFile(try readYAML(text, file: "report.yaml"), registry: .standard, problems: &problems)
        try #require(problems == [])
        let run = Run(
            file: try #require(file),
            identity: RunIdentity(command: ["test"], configuration: text, arm: arm),
            folder: folder,
            baseFolder: folder
        )
        let result = try await run.perform()
        #expect(result.errors.isEmpty)
    }

    @Test(
        "in a browser the players pause and resume as the log says, plots share cursor and zoom, and nothing leaves the page",
        .enabled(
            if: hasBrowser && plots != nil,
            "needs chromium, its driver, selenium, ffmpeg and uPlot: run tools/test"
        ),
        arguments: [1.0, 4.0]
    )
    func browser(speed: Double) async throws {
        let scratch = try Scratch()
        let movie = scratch.path + "/movie.mp4"
        let made = try Network.command(
            "ffmpeg",
            "-v",
            "error",
            "-y",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=320x180:rate=25:duration=12",
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-pix_fmt",
            "yuv420p",
            "-g",
            "25",
            "-b:v",
            "400k",
            "-minrate",
            "400k",
            "-maxrate",
            "400k",
            "-bufsize",
            "400k",
            "-x264-params",
            "nal-hrd=cbr",
            "-movflags",
            "+faststart",
            movie
        )
        try #require(made.status == 0, "\(made.output)")
        try await run(scratch.path + "/single", movie: movie, scheduler: "{ type: single, source: a }", arm: "single")
        try await run(scratch.path + "/dual", movie: movie, scheduler: "{ type: earliest_delivery }", arm: "dual")
        let page = try ReportPage(paths: [scratch.path + "/single", scratch.path + "/dual"])
        #expect(page.verdict.hasPrefix("A second server (dual) removed "), "\(page.verdict)")
        let html = page.html(
            movie: .embedded(try Data(contentsOf: URL(filePath: movie))),
            plots: try #require(Self.plots)
        )
        try Data(html.utf8).write(to: URL(filePath: scratch.path + "/report.html"))
        let checker = Self.root.appending(path: "tools/page-check").path
        let (status, output) = try Network.command(
            "/usr/bin/python3",
            checker,
            scratch.path + "/report.html",
            "--speed",
            "\(speed)"
        )
        #expect(status == 0, "\(output.suffix(3_000))")
        let result = try JSONSerialization.jsonObject(with: Data(output.drop { $0 != "{" }.utf8)) as? [String: Any]
        let arms = try #require(result?["arms"] as? [[String: Any]])
        #expect(arms.map { ($0["logged"] as? [Any])?.count ?? 0 }.first ?? 0 > 2)
        #expect(arms.allSatisfy { ($0["frames"] as? NSNumber)?.intValue ?? 0 > 20 })
        if speed == 1 { try film(page, movie, scratch) }
        // On a telephone as well.
        let narrow = try Network.command(
            "/usr/bin/python3",
            checker,
            scratch.path + "/report.html",
            "--speed",
            "8",
            "--width",
            "500"
        )
        #expect(!narrow.output.contains("wider than the window"), "\(narrow.output.suffix(1_000))")
    }

    /// ffmpeg's own detector finds each stall of the first arm as a freeze of its length.
    private func film(_ page: ReportPage, _ movie: String, _ scratch: Scratch) throws {
        let path = scratch.path + "/film.mp4"
        try page.video.write(movie: movie, to: path)
        let events = events(in: scratch.path + "/single")
        func times(_ type: String) -> [Double] {
            events.filter { $0["type"] as? String == type }.compactMap { ($0["t_ns"] as? NSNumber)?.doubleValue }.map {
                $0 / 1e9
            }
        }
        let (begins, ends) = (times("stall_begin"), times("stall_end"))
        #expect(begins.count > 1 && begins.count == ends.count)
        // The left half is the first arm; the clock in its corner runs on.
        let (_, text) = try Network.command(
            "ffmpeg",
            "-nostdin",
            "-i",
            path,
            "-vf",
            "crop=iw/2:ih/2:0:ih/2,freezedetect=n=0.002:d=0.5",
            "-map",
            "0:v",
            "-f",
            "null",
            "-"
        )
        func found(_ key: String) -> [Double] {
            text.split(separator: "\n").filter { $0.contains("lavfi.freezedetect.\(key): ") }.compactMap {
                $0.split(separator: " ").last.flatMap { Double($0) }
            }
        }
        let starts = found("freeze_start")
        for (begin, end) in zip(begins, ends) where end - begin > 0.6 {
            let place = starts.firstIndex { abs($0 - begin) < 0.15 }
            #expect(place != nil, "no freeze at \(begin): \(starts)")
        }
    }

    @Test("hostile names and values stay text", .enabled(if: plots != nil, "needs uPlot: run tools/setup"))
    func hostile() async throws {
        let scratch = try Scratch()
        try scratch.file("movie.bin", byteCount: 300_000)
        let name = "</script><script>alert(1)</script>\u{1B}[31m\u{202E}\"'<img src=x onerror=alert(2)>"
        try await run(
            scratch.path + "/single",
            movie: scratch.path + "/movie.bin",
            scheduler: "{ type: earliest_delivery }",
            arm: name,
            sources: "a</script>&"
        )
        // And one that somebody else wrote: ten megabytes of a name, numbers that are none.
        let path = scratch.path + "/single"
        var object = try #require(
            try JSONSerialization.jsonObject(with: Data(contentsOf: URL(filePath: path + "/run.json")))
                as? [String: Any]
        )
        object["config"] = name + String(repeating: "x", count: 10_000_000)
        object["seed"] = "<b>"
        try JSONSerialization.data(withJSONObject: object).write(to: URL(filePath: path + "/run.json"))
        try
            "t_ns,contiguous_bytes,playable_ns,played_ns,state\n1,2,3,4,</script>\n9223372036854775807,1,-9223372036854775808,5,x\n"
            .write(toFile: path + "/buffer.csv", atomically: true, encoding: .utf8)
        let html = try ReportPage(paths: [path]).html(
            movie: .linked("a\"</script>.mp4"),
            plots: try #require(Self.plots)
        )
        #expect(html.utf8.count < 4_000_000)
        #expect(html.components(separatedBy: "<script").count == 4)
        #expect(html.components(separatedBy: "</script").count == 4)
        #expect(!html.contains("<img"))
        #expect(!html.unicodeScalars.contains { $0.value == 0x1B || $0.value == 0x202E })
        let data = try #require(
            html.components(separatedBy: "id=\"data\">").last?.components(separatedBy: "</script>").first
        )
        let parsed = try #require(try JSONSerialization.jsonObject(with: Data(data.utf8)) as? [String: Any])
        #expect(parsed["movie"] as? String == "a\"</script>.mp4")
        let sources = ((parsed["arms"] as? [[String: Any]])?.first?["sources"] as? [String])
        #expect(sources == ["a</script>&", "b"])
    }

    @Test(
        "200,000 chunks make a file of less than 8 MB; its columns are those that parse writes",
        .enabled(if: plots != nil, "needs uPlot: run tools/setup")
    )
    func large() throws {
        let scratch = try Scratch()
        var text = "seq,t_ns,source,offset,length,requested_ns,first_byte_ns,done_ns,dup\n"
        for index in 0..<200_000 {
            let done = index * 3_000_000 + index % 7 * 100_000
            text +=
                "\(index),\(done),\(index % 3 == 0 ? "b" : "a"),\(index * 65_536),65536,\(max(0, done - 9_000_000)),\(max(0, done - 1_000_000)),\(done),0\n"
        }
        try text.write(toFile: scratch.path + "/chunks.csv", atomically: true, encoding: .utf8)
        let html = try ReportPage(paths: [scratch.path]).html(movie: .none, plots: try #require(Self.plots))
        #expect(html.utf8.count < 8_000_000, "\(html.utf8.count) bytes")
        let data = try #require(
            html.components(separatedBy: "id=\"data\">").last?.components(separatedBy: "</script>").first
        )
        let parsed = try #require(try JSONSerialization.jsonObject(with: Data(data.utf8)) as? [String: Any])
        let bins = try #require((parsed["arms"] as? [[String: Any]])?.first?["bins"] as? [[String: Any]])
        let second = try #require(bins.first { ($0["width"] as? NSNumber)?.intValue == 10_000 })
        let columns = Columns(try ChunkTable(path: scratch.path), interval: 1_000_000_000)
        let counts = try #require(second["counts"] as? [[NSNumber]])
        #expect(counts.count == 2)
        for (place, source) in columns.sources.enumerated() {
            #expect(counts[place].map(\.uint64Value) == columns.rows.map { $0.counts[place] }, "\(source)")
        }
    }

    @Test("400 runs in one index, newest first, their names as text")
    func index() throws {
        let scratch = try Scratch()
        for number in 0..<400 {
            let folder = scratch.path + "/2026-\(1_000 + number)<b>"
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            try #"{"arm":"dual"}"#.write(toFile: folder + "/run.json", atomically: true, encoding: .utf8)
            try "seq,t_ns,source,offset,length,requested_ns,first_byte_ns,done_ns,dup\n0,5,a,0,100,1,2,5,0\n".write(
                toFile: folder + "/chunks.csv",
                atomically: true,
                encoding: .utf8
            )
        }
        #expect(ReportIndex.isFor(scratch.path))
        let html = ReportIndex(folder: scratch.path).html
        #expect(html.components(separatedBy: "<tr>").count == 402)
        #expect(html.contains("400 runs in "))
        #expect(!html.contains("<b>"))
        let (first, last) = (html.firstRange(of: "2026-1399"), html.firstRange(of: "2026-1000"))
        #expect(try #require(first).lowerBound < #require(last).lowerBound)
    }
}
