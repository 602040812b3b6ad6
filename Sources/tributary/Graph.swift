import ArgumentParser
import Lab
import PipelineConfig
import PipelineCore

struct Graph: ParsableCommand {
    /// The language of the drawing.
    enum Language: String, ExpressibleByArgument, CaseIterable { case mermaid, dot }

    static let configuration = CommandConfiguration(
        abstract: "Draw the pipelines of a file as a Mermaid or DOT graph."
    )
    @Argument(help: "The file.", completion: .file(extensions: ["yaml", "yml"]))
    var file: String
    @Option(help: "mermaid or dot.")
    var format: Language = .mermaid

    func run() throws {
        let read = try ConfigurationFile(path: file)
        switch read.content {
        case .run(let run): Terminal.result(draw(run.pipelines))
        case .experiment(let experiment):
            // The first trial stands for all: arms differ in options more than in shape.
            Terminal.result(draw(experiment.trials.first?.file.pipelines ?? []))
        }
    }

    private func draw(_ pipelines: [PipelinePlan]) -> String {
        switch format {
        case .mermaid: GraphText.mermaid(pipelines)
        case .dot: GraphText.dot(pipelines)
        }
    }
}
