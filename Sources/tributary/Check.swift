import ArgumentParser
import Lab
import PipelineConfig

struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Read a file and say all that is wrong with it, without opening anything."
    )
    @Argument(help: "The files.", completion: .file(extensions: ["yaml", "yml"]))
    var files: [String]
    @Option(help: "Check it for this kind of time: real or virtual.")
    var driver: DriverKind?

    func run() throws {
        var failed = false
        for path in files {
            do {
                let file = try ConfigurationFile(path: path, driver: driver)
                switch file.content {
                case .run(let run):
                    let stages = run.pipelines.map(\.parts.count).reduce(0, +)
                    Terminal.result("\(path): good: \(run.pipelines.count) pipelines, \(stages) stages")
                case .experiment(let experiment):
                    Terminal.result("\(path): good: an experiment of \(experiment.trials.count) runs")
                }
            } catch let code as ExitCode where code.rawValue == 65 {
                failed = true
            }
        }
        if failed { throw ExitCode(65) }
    }
}
