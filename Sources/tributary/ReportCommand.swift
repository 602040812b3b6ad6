import ArgumentParser
import Foundation
import LiveView
import PipelineCore
import Report

struct ReportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Make one HTML file of runs: plots, and the movie replayed with the pauses of each.",
        discussion: """
            Give run folders or an experiment's; of one folder of runs it makes an index. Two arms are shown beside each other, the first and the one that stalls \
            least, unless --arms names others. The file opens without a network; a movie that is not embedded must stay where \
            it is. With --live nothing is written: the page of one run that goes on is served until Ctrl-C.
            """
    )
    @Argument(help: "Run folders or experiment folders.", completion: .directory)
    var runs: [String]
    @Option(
        name: [.customShort("o"), .customLong("out")],
        help: "The file; by default report.html in the first folder."
    )
    var out: String?
    @Option(help: "The movie that the players show.", completion: .file())
    var movie: String?
    @Flag(help: "Put the movie into the file itself.")
    var embedMovie = false
    @Option(name: .customLong("mp4"), help: "Make a film of the players side by side, in place of the page.")
    var film: String?
    @Option(help: "Arms to show, separated by commas: NAME or NAME/TRANSPORT.")
    var arms: String?
    @OptionGroup var live: LiveOption

    func run() async throws {
        guard let first = runs.first else { throw ValidationError("name at least one run") }
        if embedMovie, movie == nil { throw ValidationError("--embed-movie needs --movie FILE") }
        if let address = live.address { return try await follow(first, at: address) }
        if runs.count == 1, ReportIndex.isFor(first) { return try index(first) }
        let path = out ?? first + "/report.html"
        do {
            let page = try ReportPage(paths: runs, arms: (arms ?? "").split(separator: ",").map(String.init))
            if let film {
                guard let movie = movie ?? page.receivedMovie else {
                    throw ReportPage.Failure(description: "--mp4 needs the movie: name it with --movie FILE")
                }
                try page.video.write(movie: movie, to: film)
                return Terminal.result(film)
            }
            try Self.write(page, to: path, movie: movie ?? page.receivedMovie, embeds: embedMovie)
            Terminal.error(printable(page.verdict))
            Terminal.result(path)
        } catch let failure as ReportPage.Failure {
            Terminal.error("error: \(failure)")
            throw ExitCode(65)
        }
    }

    /// Shows a run that another process makes, until a signal comes.
    private func follow(_ folder: String, at address: ListenAddress) async throws {
        guard runs.count == 1 else { throw ValidationError("--live follows one run or experiment") }
        guard out == nil, movie == nil, film == nil, arms == nil, !embedMovie else {
            throw ValidationError("--live writes nothing and shows what goes on: it has no other option beside it")
        }
        let views = try await Views(ViewOptions(live: address), folder: folder, files: FileBoard())
        await Signals.first(within: nil)
        await views.stop()
    }

    /// A folder of runs has one page that leads to theirs.
    private func index(_ folder: String) throws {
        let path = out ?? folder + "/index.html"
        do {
            try Data(ReportIndex(folder: folder).html.utf8).write(to: URL(filePath: path), options: .atomic)
        } catch {
            Terminal.error("error: '\(path)' cannot be written: \(error.localizedDescription)")
            throw ExitCode(1)
        }
        Terminal.result(path)
    }

    /// Writes a page, whole or not at all.
    static func write(_ page: ReportPage, to path: String, movie: String?, embeds: Bool) throws {
        var source = ReportPage.Movie.none
        if let movie {
            guard FileManager.default.isReadableFile(atPath: movie) else {
                throw ReportPage.Failure(description: "the movie '\(movie)' cannot be read")
            }
            if embeds {
                let data = FileManager.default.contents(atPath: movie) ?? Data()
                guard data.count <= 256 << 20 else {
                    throw ReportPage.Failure(
                        description: "a movie of \(data.count >> 20) MiB is too large to embed; the most is 256 MiB"
                    )
                }
                source = .embedded(data)
            } else {
                source = .linked(link(to: movie, from: path))
            }
        }
        let text = page.html(movie: source, plots: try PlotLibrary())
        do {
            try Data(text.utf8).write(to: URL(filePath: path), options: .atomic)
        } catch { throw ReportPage.Failure(description: "'\(path)' cannot be written: \(error.localizedDescription)") }
    }

    /// A relative path as a URL: a folder of runs may be moved with its page.
    private static func link(to movie: String, from page: String) -> String {
        let target = URL(filePath: movie).standardizedFileURL.pathComponents
        let base = URL(filePath: page).standardizedFileURL.deletingLastPathComponent().pathComponents
        var common = 0
        while common < min(target.count, base.count), target[common] == base[common] { common += 1 }
        let parts = Array(repeating: "..", count: base.count - common) + target[common...]
        return parts.map {
            $0.addingPercentEncoding(
                withAllowedCharacters: .urlPathAllowed.subtracting(CharacterSet(charactersIn: ":?#"))
            ) ?? $0
        }.joined(separator: "/")
    }

    /// The page of a run or an experiment that has just ended, in its folder; a word on stderr if it cannot be made.
    static func afterRun(_ folder: String) {
        let path = folder + "/report.html"
        do {
            let page = try ReportPage(paths: [folder])
            try write(page, to: path, movie: page.receivedMovie, embeds: false)
            Terminal.error("report: \(path)")
        } catch { Terminal.error("no report: \(error)") }
    }
}
