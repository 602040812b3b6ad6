import ArgumentParser
import PipelineConfig
import PipelineCore
import StandardStages

struct Stages: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List the stages, or one stage's options.")
    @Argument(
        help: "A stage's type.",
        completion: .custom { _, _, _ in StageRegistry.standard.descriptions.map(\.typeName) }
    )
    var name: String?
    @Flag(help: "As JSON.")
    var json = false

    func run() throws {
        let all = StageRegistry.standard.descriptions
        guard let name else {
            if json { return Terminal.result(SummaryValue.list(all.map(\.json)).indentedJSON()) }
            for kind in StageKind.allCases {
                let ones = all.filter { $0.kind == kind }
                guard !ones.isEmpty else { continue }
                Terminal.result("\(kind.rawValue)s")
                let width = ones.map(\.typeName.count).max() ?? 0
                for one in ones {
                    let padding = String(repeating: " ", count: width - one.typeName.count)
                    Terminal.result("  \(one.typeName)\(padding)  \(one.purpose)")
                }
            }
            return
        }
        let ones = all.filter { $0.typeName == name }
        guard !ones.isEmpty else {
            let near = closest(to: name, in: all.map(\.typeName)).map { "; did you mean '\($0)'?" } ?? ""
            throw ValidationError("no stage is called '\(name)'\(near)")
        }
        for one in ones { show(one) }
    }

    /// One stage's reference page; a stage and an observer may share a name.
    private func show(_ one: StageDescription) {
        if json { return Terminal.result(one.json.indentedJSON()) }
        Terminal.result("\(one.typeName) (\(one.kind.rawValue)): \(one.purpose)")
        if one.options.isEmpty { Terminal.result("  no options") }
        let width = one.options.map(\.key.count).max() ?? 0
        for option in one.options {
            let padding = String(repeating: " ", count: width - option.key.count)
            let given = option.defaultValue.map { ", default \($0.isEmpty ? "empty" : $0)" } ?? ", required"
            let limits = option.limits.map { ", \($0)" } ?? ""
            Terminal.result("  \(option.key)\(padding)  \(option.shape)\(given)\(limits)")
        }
    }
}

extension StageDescription {
    fileprivate var json: SummaryValue {
        .object([
            (key: "type", value: .text(typeName)), (key: "kind", value: .text(kind.rawValue)),
            (key: "purpose", value: .text(purpose)),
            (
                key: "options",
                value: .list(
                    options.map { option in
                        .object([
                            (key: "key", value: .text(option.key)), (key: "shape", value: .text(option.shape)),
                            (key: "default", value: option.defaultValue.map { .text($0) } ?? .null),
                            (key: "limits", value: option.limits.map { .text($0) } ?? .null),
                        ])
                    }
                )
            ),
        ])
    }
}
