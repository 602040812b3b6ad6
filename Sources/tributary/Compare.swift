import ArgumentParser
import Lab
import PipelineCore

struct Compare: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Lay runs side by side: start-up, stalls, shares, what virtual time predicted.",
        discussion: """
            Takes run folders and experiment folders, finished or not. From five repeats on the difference to the first \
            arm has a paired bootstrap 95 % interval; below that n= stands in its place.
            """
    )
    @Argument(help: "Run folders or experiment folders.", completion: .directory)
    var runs: [String]
    @Flag(help: "As JSON.")
    var json = false

    func run() throws { try Self.print(paths: runs, json: json) }

    /// Prints the table, or JSON.
    ///
    /// - Throws: Exit status 65 if a folder is no run.
    static func print(paths: [String], json: Bool) throws {
        let comparison = Comparison(paths: paths)
        Terminal.result(json ? comparison.json.indentedJSON() : comparison.text)
        for problem in comparison.problems { Terminal.error("error: \(problem)") }
        if !comparison.problems.isEmpty { throw ExitCode(65) }
    }
}
