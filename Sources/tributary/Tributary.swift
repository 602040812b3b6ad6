import ArgumentParser
import LiveView

/// The command line. One file per subcommand.
@main
struct Tributary: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tributary",
        abstract: "Streams one movie from several servers at once, and says why it stalled.",
        discussion: """
            Exit status: 0 done, 1 the run failed, 2 the wire contradicts the logs or a player the model, 3 neither can tell, 64 wrong usage, 65 wrong configuration or data, 130 interrupted (the \
            run's folder is complete as far as it goes).
            """,
        version: "0.1.0",
        subcommands: [
            RunCommand.self, Watch.self, Serve.self, Check.self, Stages.self, Graph.self, Parse.self, Compare.self,
            ReportCommand.self, PlayerCommand.self, UDP.self, Wire.self,
            Bench.self,
        ]
    )

    static func main() async {
        // A flag that may have a value has it behind a '=': `run --live movie.yaml` names a file, not a port.
        await main(CommandLine.arguments.dropFirst().map { $0 == "--live" ? "--live=\(ListenAddress.loopback)" : $0 })
    }
}
