import ArgumentParser
import Foundation
import Lab
import PipelineConfig
import PipelineCore
import StandardStages

/// A configuration file read from disk and validated whole: one run, or an experiment.
struct ConfigurationFile {
    enum Content {
        case run(RunFile)
        case experiment(Experiment)
    }
    var content: Content
    var text: String
    /// What relative paths in it are relative to.
    var folder: String

    /// Reads and validates. Every problem goes to stderr as `file:line:column: error: …`.
    ///
    /// - Throws: Exit status 65 if there is any problem.
    init(
        path: String,
        driver: DriverKind? = nil,
        seed: UInt64? = nil,
        repeats: Int? = nil,
        changes: [String] = []
    ) throws {
        var problems: [ConfigProblem] = []
        do {
            var (text, root) = try Self.load(path)
            for change in changes {
                root = try Self.overrides(change, &problems).apply(to: root, problems: &problems)
                text += "\n# --set \(change)"
            }
            self.text = text
            folder = URL(filePath: path).deletingLastPathComponent().path
            let base = folder
            let content: Content?
            if root["experiment"] != nil {
                content = Experiment(
                    root,
                    registry: .standard,
                    driver: driver,
                    repeats: repeats,
                    load: { (other) throws(ConfigProblem) in
                        try Self.load(other.hasPrefix("/") ? other : base + "/" + other).root
                    },
                    problems: &problems
                ).map { .experiment($0) }
            } else {
                content = RunFile(root, registry: .standard, driver: driver, problems: &problems).map { file in
                    var file = file
                    if let seed { file.settings.seed = seed }
                    return .run(file)
                }
            }
            guard let content, problems.isEmpty else { throw Self.refuse(problems) }
            self.content = content
        } catch let problem as ConfigProblem {
            throw Self.refuse([problem])
        }
    }

    private static func load(_ path: String) throws(ConfigProblem) -> (text: String, root: ConfigNode) {
        guard let data = FileManager.default.contents(atPath: path) else {
            let reason = unsafe access(path, R_OK) == 0 ? "it is no file" : unsafe String(cString: strerror(errno))
            throw ConfigProblem("the file cannot be read: \(reason)", at: SourceMark(file: path, line: 1, column: 1))
        }
        guard let text = String(data: data, encoding: .utf8) else {
            throw ConfigProblem("the file is not UTF-8", at: SourceMark(file: path, line: 1, column: 1))
        }
        return (text, try readYAML(text, file: path))
    }

    /// `PLACE=VALUE` of `--set`; the value is YAML.
    private static func overrides(_ change: String, _ problems: inout [ConfigProblem]) throws(ConfigProblem)
        -> Overrides
    {
        let file = "--set \(change)"
        guard let separator = change.firstIndex(of: "="), separator != change.startIndex else {
            throw ConfigProblem("expected PLACE=VALUE", at: SourceMark(file: file, line: 1, column: 1))
        }
        let value = try readYAML(String(change[change.index(after: separator)...]), file: file)
        let mark = SourceMark(file: file, line: 1, column: 1)
        return Overrides(.mapping([(String(change[..<separator]), mark, value)], mark), problems: &problems)
    }

    /// Says what is wrong, all of it.
    static func refuse(_ problems: [ConfigProblem]) -> ExitCode {
        for problem in problems { Terminal.error("\(problem)") }
        return ExitCode(65)
    }
}

extension RunFile {
    /// Reads a configuration that a command has composed of its options.
    init(composed text: String, name: String) throws {
        var problems: [ConfigProblem] = []
        do {
            let root = try readYAML(text, file: name)
            guard let file = RunFile(root, registry: .standard, problems: &problems) else {
                throw ConfigurationFile.refuse(problems)
            }
            self = file
        } catch let problem as ConfigProblem {
            throw ConfigurationFile.refuse([problem])
        }
    }
}

/// The system's words for an error.
func describe(_ error: any Error) -> String {
    if let underlying = (error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError {
        return unsafe String(cString: strerror(CInt(underlying.code)))
    }
    return error.localizedDescription
}
