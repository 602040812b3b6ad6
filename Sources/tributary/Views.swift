public import ArgumentParser
import Foundation
public import LiveView
import PipelineCore
import PipelineRuntime
import Report

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
