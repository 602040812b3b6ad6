import Crypto
public import Foundation
import Lab
import Measures
import PipelineCore
import ReportAssets

/// One file that opens anywhere: the runs' plots, and their replay beside each other.
///
/// It works from `file://` and loads nothing but the movie; its policy lets no script run but its own two, named by their
/// digests. Whatever stands in logs is text in it.
public struct ReportPage {
    /// Where the movie is.
    public enum Movie: Sendable {
        case none
        /// A path or URL that the page loads it from.
        case linked(String)
        /// In the page itself.
        case embedded(Data)
    }

    /// What keeps a page from being made.
    public struct Failure: Error, CustomStringConvertible {
        public var description: String
        public init(description: String) { self.description = description }
    }

    private let stories: [RunStory]
    private let comparison: Comparison
    private let command: [String]

    /// - Parameters:
    ///   - paths: Folders of runs or experiments.
    ///   - arms: Titles or names of the arms to show; empty: the first and the one that stalls least.
    public init(paths: [String], arms: [String] = [], command: [String] = CommandLine.arguments) throws(Failure) {
        comparison = Comparison(paths: paths)
        self.command = command
        guard !comparison.groups.isEmpty else {
            throw Failure(description: comparison.problems.first ?? "no run is here")
        }
        var chosen: [RunStory] = []
        for group in Self.chosen(comparison, arms) {
            do throws(RunReading.Unreadable) {
                chosen.append(try RunStory(folder: group.runs[0].folder))
            } catch { throw Failure(description: error.description) }
        }
        guard !chosen.isEmpty else {
            let names = comparison.groups.map { $0.transport.isEmpty ? $0.arm : "\($0.arm)/\($0.transport)" }
            throw Failure(
                description:
                    "no arm is called '\(arms.joined(separator: ", "))'; there are \(names.joined(separator: ", "))"
            )
        }
        stories = chosen
    }

    /// Two arms over one transport: the first, and the best of the others.
    private static func chosen(_ comparison: Comparison, _ arms: [String]) -> [Comparison.Group] {
        let real = comparison.groups.filter { !$0.runs.isEmpty }
        if !arms.isEmpty { return real.filter { arms.contains($0.arm) || arms.contains("\($0.arm)/\($0.transport)") } }
        guard let first = real.first else { return [] }
        let rivals = real.dropFirst().filter { $0.transport == first.transport }
        let best = rivals.min { ($0.runs[0].stallTotal ?? .infinity) < ($1.runs[0].stallTotal ?? .infinity) }
        return [first] + (best.map { [$0] } ?? [])
    }

    /// A movie that a run has received into its own folder: the one that its replay shows.
    public var receivedMovie: String? {
        stories.lazy.compactMap { RunReading.receivedMovie(in: $0.folder) }.first
    }

    /// The same as a film.
    public var video: ReportVideo { ReportVideo(stories: stories) }

    /// The page's first line.
    public var verdict: String {
        func seconds(_ value: Double) -> String { String(format: "%.1f s", value) }
        let first = stories[0]
        guard stories.count > 1, let best = stories.dropFirst().min(by: { $0.stallTotal < $1.stallTotal }) else {
            let count = first.stallCount
            return count == 0
                ? "\(first.title) played without a stall."
                : "\(first.title) stalled \(count) time\(count == 1 ? "" : "s") for \(seconds(first.stallTotal))."
        }
        let change = first.stallTotal - best.stallTotal
        if abs(change) < 0.05 {
            return "\(best.title) stalled as long as \(first.title): \(seconds(first.stallTotal))."
        }
        let servers = best.sources.count > 1 && (first.reading?.shares ?? []).filter { $0.share > 0 }.count == 1
        let who = servers && change > 0 ? "A second server (\(best.title))" : best.title
        return change > 0
            ? "\(who) removed \(seconds(change)) of rebuffering: \(seconds(best.stallTotal)) where \(first.title) stalled for \(seconds(first.stallTotal))."
            : "\(best.title) added \(seconds(-change)) of rebuffering: \(seconds(best.stallTotal)) where \(first.title) stalled for \(seconds(first.stallTotal))."
    }

    /// The whole page.
    ///
    /// - Parameter presence: A path that the page keeps a request open to while somebody looks at it.
    public func html(movie: Movie, plots: PlotLibrary, presence: String? = nil) -> String {
        var source: String?
        var embedded: Data?
        switch movie {
        case .none: break
        case .linked(let path): source = path
        case .embedded(let bytes): (source, embedded) = ("embedded", bytes)
        }
        let data = ReportData(stories: stories, groups: comparison.groups).json(movie: source, presence: presence)
        return Self.document(
            title: stories.map(\.title).joined(separator: " | "),
            heading: verdict,
            table: table,
            footer: footer,
            data: data,
            embedded: embedded,
            asks: presence != nil,
            plots: plots
        )
    }

    /// The page of runs that go on: it has nothing in it, and hears everything from `feed`.
    ///
    /// - Parameters:
    ///   - folders: Of the runs that have begun.
    ///   - movie: What the players are to load.
    ///   - feed: The path of the server-sent events.
    public static func live(folders: [String], movie: String?, feed: String, plots: PlotLibrary) -> String {
        let stories = folders.map { RunStory(begun: $0) }
        let data = ReportData(stories: stories, groups: []).json(movie: movie, feed: feed)
        let rows = stories.map { story in
            "<tr><td>\(escaped(story.arm))</td><td>\(escaped(story.transport))</td></tr>"
        }
        return document(
            title: stories.map(\.title).joined(separator: " | "),
            heading: stories.isEmpty ? "No run has begun yet." : "Waiting for the first bytes.",
            table: table(rows.joined()),
            footer: footer(stories, [], "", isLive: true),
            data: data,
            embedded: nil,
            asks: true,
            plots: plots
        )
    }

    /// - Parameter asks: Whether the page may talk to the server that it comes from.
    private static func document(
        title: String,
        heading: String,
        table: String,
        footer: String,
        data: String,
        embedded: Data?,
        asks: Bool,
        plots: PlotLibrary
    ) -> String {
        let script = ReportAsset.script
        let style = plots.style + "\n" + ReportAsset.style
        let policy = [
            "default-src 'none'", "script-src 'sha256-\(digest(plots.script))' 'sha256-\(digest(script))'",
            "style-src 'sha256-\(digest(style))'", "media-src 'self' file: blob: data:", "img-src data:",
            "base-uri 'none'", "form-action 'none'", asks ? "connect-src 'self'" : "connect-src 'none'",
        ]
        var parts = [
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">",
            "<meta http-equiv=\"Content-Security-Policy\" content=\"\(policy.joined(separator: "; "))\">",
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
            "<meta name=\"referrer\" content=\"no-referrer\">",
            // Without it a browser asks the server for a picture of its own.
            "<link rel=\"icon\" href=\"data:,\">",
            "<title>\(escaped(title))</title>",
            "<style>\(style)</style>\n</head>\n<body>",
            "<header><h1 id=\"verdict\">\(escaped(heading))</h1>\(table)</header>",
            "<main><section id=\"replay\" aria-label=\"Replay\"></section><section id=\"plots\" aria-label=\"Plots\"></section></main>",
            footer,
            "<script type=\"application/json\" id=\"data\">\(inScript(data))</script>",
        ]
        if let embedded {
            parts.append(
                "<script type=\"application/octet-stream\" id=\"movie\">\(embedded.base64EncodedString())</script>"
            )
        }
        parts += ["<script>\(plots.script)</script>", "<script>\(script)</script>", "</body>\n</html>\n"]
        return parts.joined(separator: "\n")
    }

    /// The arms and what changed.
    private var table: String {
        func number(_ value: Double?, _ digits: Int = 3) -> String {
            value.map { String(format: "%.\(digits)f", $0) } ?? "-"
        }
        let intervals = comparison.json["groups"]?.items ?? []
        var rows = ""
        for group in comparison.groups {
            let runs = group.runs
            func middle(_ value: (RunReading) -> Double?) -> Double? {
                median(runs.compactMap(value))
            }
            let facts = intervals.first { $0["arm"]?.text == group.arm && $0["transport"]?.text == group.transport }
            let difference = Self.real(facts?["stall_difference_s"])
            let interval = facts?["stall_difference_95"]?.items.compactMap(Self.real) ?? []
            let change =
                difference.map {
                    String(format: "%+.3f", $0)
                        + (interval.count == 2
                            ? String(format: " [%.3f, %.3f]", interval[0], interval[1])
                            : runs.count > 1 ? " n=\(runs.count)" : "")
                }
                ?? "-"
            let shares = (runs.first?.shares ?? []).map { "\($0.name) \(Int(whole: $0.share * 100)) %" }.joined(
                separator: ", "
            )
            let isShown = stories.contains { $0.arm == group.arm && $0.transport == group.transport }
            let cells = [
                group.arm, group.transport, String(runs.count), number(middle(\.startup)),
                number(middle(\.stallCount), 0),
                number(middle(\.stallTotal)), number(middle(\.stalledPercent), 2), number(middle(\.finish)), shares,
                change,
            ]
            rows +=
                "<tr\(isShown ? " class=\"shown\"" : "")>" + cells.map { "<td>\(Self.escaped($0))</td>" }.joined()
                + "</tr>"
        }
        return Self.table(rows)
    }

    private static func table(_ rows: String) -> String {
        let heads = [
            "arm", "over", "runs", "start-up s", "stalls", "stalled s", "stalled %", "last byte s", "from",
            "stalled, to the first",
        ]
        return "<div class=\"scroll\"><table><thead><tr>" + heads.map { "<th scope=\"col\">\($0)</th>" }.joined()
            + "</tr></thead><tbody id=\"rows\">\(rows)</tbody></table></div>"
    }

    private static func real(_ value: SummaryValue?) -> Double? {
        switch value {
        case .number(let number): number
        case .integer(let number): Double(number)
        default: nil
        }
    }

    private var footer: String { Self.footer(stories, comparison.problems, command.joined(separator: " ")) }

    private static func footer(
        _ stories: [RunStory],
        _ problems: [String],
        _ command: String,
        isLive: Bool = false
    ) -> String {
        var lines: [String] = []
        for story in stories {
            func text(_ key: String) -> String { story.run[key].map { "\($0)" } ?? "-" }
            let facts: [(String, String)] = [
                ("folder", story.folder), ("command", (story.run["command"] as? [String] ?? []).joined(separator: " ")),
                ("seed", text("seed")),
                ("driver", text("driver")), ("version", text("tributary_version")), ("host", text("host")),
                ("system", text("system")),
                ("wire", story.crosscheck?["verdict"] as? String ?? "not captured"),
                (
                    "clock",
                    "run times are CLOCK_MONOTONIC from \(text("origin_monotonic_ns")) ns, read within 1 us of CLOCK_REALTIME"
                ),
            ]
            let rows = facts.map { "<dt>\($0.0)</dt><dd>\(Self.escaped($0.1))</dd>" }.joined()
            lines.append(
                "<details><summary>\(Self.escaped(story.title))</summary><dl>\(rows)</dl><pre>\(Self.escaped(story.run["config"] as? String ?? ""))</pre></details>"
            )
        }
        let problems = problems.map { "<p class=\"problem\">\(Self.escaped($0))</p>" }.joined()
        return
            "<footer>\(problems)<p><button id=\"csv\" type=\"button\">Chunks as CSV</button>"
            + (isLive ? "" : " <button id=\"json\" type=\"button\">Data as JSON</button>") + "</p>" + lines.joined()
            + "<p>\(command.isEmpty ? "" : "Made by <code>\(Self.escaped(command))</code>. ")Plots: uPlot 1.6.31, MIT licence.</p></footer>"
    }

    /// Text in HTML: nothing in it is markup, and control characters are shown as what they are.
    static func escaped(_ text: String) -> String {
        var escaped = ""
        // A name of megabytes is no name.
        for scalar in text.unicodeScalars.prefix(20_000) {
            switch scalar {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            case "\"": escaped += "&quot;"
            case "'": escaped += "&#39;"
            case "\n", "\t": escaped.unicodeScalars.append(scalar)
            case _
            where scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
                || (0x202A...0x202E).contains(scalar.value) || (0x2066...0x2069).contains(scalar.value):
                escaped += "\u{FFFD}"
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }

    /// JSON within a script element: no `<` is left that could end it.
    static func inScript(_ json: String) -> String {
        var safe = ""
        safe.reserveCapacity(json.utf8.count)
        for scalar in json.unicodeScalars {
            switch scalar {
            case "<": safe += "\\u003c"
            // Line separators, and what turns the direction of writing.
            case "\u{2028}"..."\u{202E}", "\u{2066}"..."\u{2069}", "\u{7F}"..."\u{9F}":
                let digits = String(scalar.value, radix: 16)
                safe += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: safe.unicodeScalars.append(scalar)
            }
        }
        return safe
    }

    static func digest(_ text: String) -> String { Data(SHA256.hash(data: Data(text.utf8))).base64EncodedString() }
}

/// uPlot, which draws: fetched by `tools/setup`, not part of the project.
public struct PlotLibrary: Sendable {
    let script: String
    let style: String

    /// SHA-256 of `uPlot.iife.min.js` of release 1.6.31.
    public static let digest = "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2"

    /// Looks for it in `TRIBUTARY_UPLOT`, beside the program, and in `.build/vendor` of the folder and those above it.
    ///
    /// - Throws: ``ReportPage/Failure`` that says which command brings it, or that it is not what it should be.
    public init() throws(ReportPage.Failure) {
        var folders = [ProcessInfo.processInfo.environment["TRIBUTARY_UPLOT"]].compactMap { $0 }
        let program = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        for start in [program, URL(filePath: FileManager.default.currentDirectoryPath)] {
            var place = start
            for _ in 0..<6 {
                folders += [place.appending(path: "vendor").path, place.appending(path: ".build/vendor").path]
                place.deleteLastPathComponent()
            }
        }
        let name = "uplot.iife.min.js"
        guard let folder = folders.first(where: { FileManager.default.fileExists(atPath: $0 + "/" + name) }),
            let script = FileManager.default.contents(atPath: folder + "/" + name)
        else {
            throw ReportPage.Failure(
                description:
                    "uPlot, which draws the plots, is not here: run 'tools/setup', or set TRIBUTARY_UPLOT to its folder"
            )
        }
        let found = SHA256.hash(data: script).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
        guard found == Self.digest else {
            throw ReportPage.Failure(
                description:
                    "\(folder)/\(name) is not uPlot 1.6.31: its SHA-256 is \(found); remove it and run 'tools/setup'"
            )
        }
        self.script = String(decoding: script, as: UTF8.self)
        style = String(
            decoding: FileManager.default.contents(atPath: folder + "/uplot.min.css") ?? Data(),
            as: UTF8.self
        )
    }
}
