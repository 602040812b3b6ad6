public import ArgumentParser
import CaptureFiles
import Foundation
import Lab
public import PipelineConfig
import PipelineCore
import PipelineRuntime
import Playout

/// What `run`, `watch` and `serve` have in common on the command line.
struct OutputOptions: ParsableArguments {
    @Flag(help: "Results as JSON on stdout.")
    var json = false
    @Flag(name: [.short, .long], help: "No progress on stderr.")
    var quiet = false
}

struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run the pipelines of a file, or an experiment.",
        discussion: """
            Writes one folder per run below --out (default: the file's 'out', or 'runs'). Ctrl-C ends the run in good \
            order, a second one at once; the folder is complete as far as it goes and the exit status is 130.
            """
    )
    @Argument(help: "The file.", completion: .file(extensions: ["yaml", "yml"]))
    var file: String
    @Option(
        name: .customLong("set"),
        help: "Change the file: PLACE=VALUE, such as client.stages.0.type=pull. Repeatable."
    )
    var changes: [String] = []
    @Option(help: "Kind of time: real or virtual; replaces the file's.")
    var driver: DriverKind?
    @Option(help: "Folder to make the run's folder in.", completion: .directory)
    var out: String?
    @Option(help: "Seed; replaces the file's.")
    var seed: UInt64?
    @Option(help: "Repeats of each arm of an experiment; replaces the file's.")
    var repeats: Int?
    @Option(help: "Trials of an experiment that run side by side; replaces the file's.")
    var parallel: Int?
    @OptionGroup var live: LiveOption
    @OptionGroup var output: OutputOptions

    func validate() throws {
        if let repeats, !(1...1000).contains(repeats) { throw ValidationError("--repeats must be 1 to 1000") }
        if let parallel, !(1...64).contains(parallel) { throw ValidationError("--parallel must be 1 to 64") }
    }

    func run() async throws {
        let read = try ConfigurationFile(path: file, driver: driver, seed: seed, repeats: repeats, changes: changes)
        let identity = RunIdentity(command: CommandLine.arguments, configuration: read.text)
        let title = URL(filePath: file).deletingPathExtension().lastPathComponent
        switch read.content {
        case .run(let runFile):
            try await performRun(
                runFile,
                identity: identity,
                title: title,
                baseFolder: read.folder,
                folder: (out ?? runFile.settings.out ?? "runs") + "/" + Run.folderName(title),
                views: ViewOptions(live: live.address),
                output: output
            )
        case .experiment(var experiment):
            if let seed { experiment.seed = seed }
            if let parallel { experiment.parallel = parallel }
            try await perform(experiment, identity, title, read.folder)
        }
    }

    private func perform(
        _ experiment: Experiment,
        _ identity: RunIdentity,
        _ title: String,
        _ baseFolder: String
    ) async throws {
        let folder = (out ?? experiment.out) + "/" + Run.folderName(title)
        let control = RunControl()
        let signals = Signals(control)
        defer { withExtendedLifetime(signals) {} }
        let views = try await Views(ViewOptions(live: live.address), folder: folder, files: FileBoard())
        let display = ProgressDisplay(isQuiet: output.quiet)
        let count = experiment.trials.count
        let results: [(trial: Experiment.Trial, result: RunResult)]
        do throws(StageError) {
            results = try await experiment.perform(
                in: folder,
                identity: identity,
                baseFolder: baseFolder,
                control: control,
                progress: { trial, board in Task { await display.add(trial.folder, board) } },
                ended: { trial, result in
                    let word = result.errors.isEmpty ? "done" : "FAILED: \(result.errors[0])"
                    Task { await display.remove(trial.folder, saying: "\(trial.folder): \(word)") }
                }
            )
        } catch {
            await display.end()
            Terminal.error("error: \(error)")
            throw ExitCode(1)
        }
        await display.end()
        for (trial, result) in results {
            for error in result.errors { Terminal.error("error: \(trial.folder): \(error)") }
        }
        try Compare.print(paths: [folder], json: output.json)
        Terminal.error("\(results.count) of \(count) runs in \(folder)")
        let status =
            try results.map { try wireVerdict(of: $0.result, title: $0.trial.folder, isShort: true, json: output.json) }
            .max() ?? 0
        ReportCommand.afterRun(folder)
        let wasInterrupted = control.state != .running
        await views.linger(control, hasMovie: false)
        if wasInterrupted { throw ExitCode(130) }
        if results.contains(where: { !$0.result.errors.isEmpty }) { throw ExitCode(1) }
        if status != 0 { throw ExitCode(status) }
    }
}

/// Compares a run's logs with what it captured, if it captured anything, and says what follows.
///
/// - Returns: The exit status that the verdict asks for.
private func wireVerdict(of result: RunResult, title: String, isShort: Bool, json: Bool) throws -> Int32 {
    guard let folder = result.folder,
        let names = try? FileManager.default.contentsOfDirectory(atPath: folder),
        names.contains(where: { $0.hasPrefix("wire-") && $0.hasSuffix(".pcapng") })
    else { return 0 }
    let check: WireCheck
    do {
        check = try WireCheck(folders: [folder])
    } catch {
        Terminal.error("wire: \(error)")
        return Verdict.inconclusive.exitStatus
    }
    try WireCheckCommand.write(check, to: folder)
    let first = String(check.text.prefix { $0 != "\n" })
    let text = isShort ? "\(title): wire \(first)" : "wire: \(check.text)"
    if json { Terminal.error(printable(text)) } else { Terminal.result(printable(text)) }
    return check.verdict.exitStatus
}

/// Runs one file, shows its progress and its results.
///
/// - Throws: The exit status, if it is not 0.
func performRun(
    _ file: RunFile,
    identity: RunIdentity,
    title: String,
    baseFolder: String,
    folder: String?,
    addresses: AddressBoard = AddressBoard(),
    views viewOptions: ViewOptions = ViewOptions(),
    output: OutputOptions
) async throws {
    let control = RunControl()
    let signals = Signals(control)
    defer { withExtendedLifetime(signals) {} }
    let files = FileBoard()
    let views = try await Views(viewOptions, folder: folder ?? "", files: files)
    let display = ProgressDisplay(isQuiet: output.quiet)
    let board = ProgressBoard()
    if file.pipelines.contains(where: { !$0.demands.isService }), file.settings.driver == .real {
        await display.add(title, board)
    }
    let result: RunResult
    do throws(StageError) {
        var run = Run(file: file, identity: identity, folder: folder, baseFolder: baseFolder, progress: board)
        run.addresses = addresses
        run.files = files
        result = try await run.perform(control: control)
    } catch {
        await display.end()
        Terminal.error("error: \(error)")
        throw ExitCode(1)
    }
    await display.end()
    for error in result.errors { Terminal.error("error: \(error)") }
    if let folder = result.folder {
        if file.pipelines.contains(where: { !$0.demands.isService && !$0.sources.isEmpty }) {
            try Compare.print(paths: [folder], json: output.json)
        }
        Terminal.error("run folder: \(folder)")
    } else if output.json {
        let pipelines = result.outcomes.map { (key: $0.name, value: $0.summary) }
        Terminal.result(SummaryValue.object(pipelines).indentedJSON())
    }
    let status = try wireVerdict(of: result, title: title, isShort: false, json: output.json)
    if let folder = result.folder, file.pipelines.contains(where: { !$0.demands.isService && !$0.sources.isEmpty }) {
        ReportCommand.afterRun(folder)
    }
    await views.linger(control, hasMovie: result.errors.isEmpty)
    if let folder = result.folder, PlayerCheck.isFor(folder) {
        let check = try? PlayerCommand.check(folder, .chromium)
        if let check { output.json ? Terminal.error(check.text) : Terminal.result(check.text) }
    }
    if !result.errors.isEmpty { throw ExitCode(1) }
    if status != 0 { throw ExitCode(status) }
    if result.wasInterrupted, file.pipelines.contains(where: { !$0.demands.isService }) { throw ExitCode(130) }
}

extension DriverKind: ExpressibleByArgument {}
