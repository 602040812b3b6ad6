import ArgumentParser
import Foundation
import Report

struct ReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Make one HTML file of runs: plots, and the movie replayed with the pauses of each.",
        discussion: """
            Give run folders or an experiment's. Two arms are shown beside each other, the first and the one that stalls \
            least, unless --arms names others. The file opens without a network; a movie that is not embedded must stay where \
            it is.
            """
    )
    @Argument(help: "Run folders or experiment folders.", completion: .directory)
    var runs: [String]
    @Option(name: [.customShort("o"), .customLong("out")], help: "The file; by default report.html in the first folder.")
    var out: String?
    @Option(help: "The movie that the players show.", completion: .file())
    var movie: String?
    @Flag(help: "Put the movie into the file itself.")
    var embedMovie = false
    @Option(help: "Arms to show, separated by commas: NAME or NAME/TRANSPORT.")
    var arms: String?

    func run() throws {
        guard let first = runs.first else { throw ValidationError("name at least one run") }
        if embedMovie, movie == nil { throw ValidationError("--embed-movie needs --movie FILE") }
        let path = out ?? first + "/report.html"
        do {
            let page = try ReportPage(paths: runs, arms: (arms ?? "").split(separator: ",").map(String.init))
            try Self.write(page, to: path, movie: movie, embeds: embedMovie)
            Terminal.error(printable(page.verdict))
            Terminal.result(path)
        } catch let failure as ReportPage.Failure {
            Terminal.error("error: \(failure)")
            throw ExitCode(65)
        }
    }

    /// Writes a page, whole or not at all.
    static func write(_ page: ReportPage, to path: String, movie: String?, embeds: Bool) throws {
        var source = ReportPage.Movie.none
        if let movie {
            guard let data = FileManager.default.contents(atPath: movie) else {
                throw ReportPage.Failure(description: "the movie '\(movie)' cannot be read")
            }
            if embeds {
                guard data.count <= 256 << 20 else {
                    throw ReportPage.Failure(description: "a movie of \(data.count >> 20) MiB is too large to embed; the most is 256 MiB")
                }
                source = .embedded(data)
            } else {
                source = .linked(URL(filePath: movie).absoluteURL.absoluteString)
            }
        }
        let text = page.html(movie: source, plots: try PlotLibrary())
        do {
            try Data(text.utf8).write(to: URL(filePath: path), options: .atomic)
        } catch { throw ReportPage.Failure(description: "'\(path)' cannot be written: \(error.localizedDescription)") }
    }
}
