public import ArgumentParser
import Foundation
import Lab
import PipelineCore
public import Playout
import StreamingStages

/// What a player that played from `--play` did, beside the model.
struct PlayerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "player",
        abstract: "Lay what a real player did beside the playout model of the same bytes.",
        discussion: """
            The player is the page of 'watch --play': it writes player.jsonl into the run's folder. The model is given the \
            bytes as they came and the moment at which play was pressed. Exit status 2 if their stalls differ in number, or \
            in a begin or end by more than the tolerance, 3 if the viewer paused or sought.
            """
    )
    @Argument(help: "Run folders.", completion: .directory)
    var runs: [String]
    @Option(help: "Player whose thresholds the model has.")
    var preset: PlayerPreset = .chromium
    @Option(
        help: "The movie, if it is not in the run's folder: its index says what could be played.",
        completion: .file()
    )
    var movie: String?
    @Option(help: "The most by which a begin or end may differ, in seconds.")
    var tolerance = 0.5
    @Flag(help: "As JSON.")
    var json = false

    /// - Parameter movie: By default what the run has received.
    static func check(
        _ folder: String,
        _ preset: PlayerPreset,
        movie: String? = nil
    ) throws(PlayerCheck.Unreadable) -> PlayerCheck {
        let movie = movie ?? RunReading.receivedMovie(in: folder)
        return try PlayerCheck(folder: folder, preset: preset, map: movie.flatMap { try? MovieFile.map(of: $0) })
    }

    func run() throws {
        var status: Int32 = 0
        var values: [SummaryValue] = []
        for folder in runs {
            do throws(PlayerCheck.Unreadable) {
                let check = try Self.check(folder, preset, movie: movie)
                if json {
                    values.append(check.json)
                } else {
                    Terminal.result((runs.count > 1 ? "\(folder): " : "") + check.text)
                }
                let isFar = check.worst.map { Double($0) > tolerance * 1e9 } ?? true
                if isFar { status = max(status, check.disturbance == nil ? 2 : 3) }
            } catch {
                Terminal.error("error: \(error)")
                status = 65
            }
        }
        if json { Terminal.result(SummaryValue.list(values).indentedJSON()) }
        if status != 0 { throw ExitCode(status) }
    }
}

extension PlayerPreset: ExpressibleByArgument {}
