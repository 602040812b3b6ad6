public import ArgumentParser
import Foundation
import Lab
public import LiveView
import PipelineCore
import PipelineRuntime
public import Playout
import Report
import StreamingStages

/// The servers beside a run: its live page, and its movie.
struct Views {
    private var live: LocalServer?
    private var player: LocalServer?

    /// Opens them before anything runs.
    ///
    /// - Throws: Exit status 1 if one cannot be opened, 65 if the page cannot be drawn.
    init(_ options: ViewOptions, folder: String, files: FileBoard) async throws {
        do {
            if let address = options.live {
                live = try await LivePage(folder: folder, files: files, plots: try PlotLibrary()).serve(at: address)
                Terminal.error("live: \(live?.url ?? "")")
            }
            if let address = options.play {
                let server = PlayServer(folder: folder, files: files, name: options.movieName)
                player = try await server.serve(at: address)
                Terminal.error(
                    "movie: \(player?.url ?? "")\(server.path) (with a player of its own: \(player?.url ?? ""))"
                )
            }
        } catch let failure as ReportPage.Failure {
            Terminal.error("error: \(failure)")
            throw ExitCode(65)
        } catch let failure as LocalServer.Failure {
            await live?.stop()
            Terminal.error("error: \(failure)")
            throw ExitCode(1)
        }
    }

    /// Stays while somebody looks or plays, until a signal ends it.
    ///
    /// - Parameter hasMovie: Whether there is a movie to wait for a player with.
    func linger(_ control: RunControl, hasMovie: Bool) async {
        if let player, hasMovie, control.state == .running {
            Terminal.error("the movie is here until its player has left; Ctrl-C ends it")
            while control.state == .running, !player.audience.hasLeft { try? await Task.sleep(for: .milliseconds(50)) }
        }
        if let live {
            while control.state == .running, live.audience.isLooking { try? await Task.sleep(for: .milliseconds(50)) }
        }
        await stop()
    }

    func stop() async {
        await player?.stop()
        await live?.stop()
    }
}

/// What is to be seen while a run goes on.
struct ViewOptions {
    var live: ListenAddress?
    var play: ListenAddress?
    var movieName = "movie"
}

/// `--live[=PORT]`: that it may stand without a value is settled in ``Tributary/main()``.
struct LiveOption: ParsableArguments {
    @Option(
        name: .customLong("live"),
        help: ArgumentHelp(
            "Show the report while the run goes on: --live, --live=PORT or --live=HOST:PORT; on loopback unless HOST says otherwise.",
            valueName: "[host:]port"
        )
    )
    var address: ListenAddress?
}

extension ListenAddress: ExpressibleByArgument {
    public init?(argument: String) { self.init(argument) }
}

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
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        let received = names.sorted().first { $0.hasSuffix(".mp4") }.map { folder + "/" + $0 }
        return try PlayerCheck(
            folder: folder,
            preset: preset,
            map: (movie ?? received).flatMap { try? MovieFile.map(of: $0) }
        )
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
