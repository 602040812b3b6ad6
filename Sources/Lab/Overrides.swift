public import PipelineCore

/// Changes to a configuration, as an experiment's arms state them: a place, and what is to stand there.
///
/// A place is a path of keys with dots between: `run.duration`, or beginning with a pipeline's name
/// (`client.stages.0`, `client.stages.alternate.delay`, `client.sources.b.rate`). An item of a list is named by its
/// number from 0, its `name` or its `type`. What stands there is replaced, or taken away if the value is `null`; a new key
/// of a mapping is added.
public struct Overrides: Sendable {
    private var changes: [(place: String, mark: SourceMark, value: ConfigNode)]

    /// Reads a mapping of places to values.
    public init(_ node: ConfigNode, problems: inout [ConfigProblem]) {
        switch node {
        case .mapping(let pairs, _): changes = pairs.map { ($0.key, $0.keyMark, $0.value) }
        case .scalar("", _), .scalar("null", _), .scalar("~", _): changes = []
        case .scalar, .sequence:
            changes = []
            problems.append(
                ConfigProblem("expected a mapping of places, such as client.stages.0, to values", at: node.mark)
            )
        }
    }

    /// The configuration with the changes made.
    public func apply(to root: ConfigNode, problems: inout [ConfigProblem]) -> ConfigNode {
        var root = root
        for (place, mark, value) in changes {
            var keys = place.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
            if keys.first != "run", keys.first != "pipelines" { keys.insert("pipelines", at: 0) }
            if let failure = root.replace(keys[...], with: value, at: mark) {
                problems.append(ConfigProblem("'\(place)': \(failure)", at: mark))
            }
        }
        return root
    }
}

extension ConfigNode {
    /// Puts `value` at a place below this node.
    ///
    /// - Returns: What is wrong with the place, if something is.
    mutating func replace(_ keys: ArraySlice<String>, with value: ConfigNode, at mark: SourceMark) -> String? {
        guard let key = keys.first else {
            self = value
            return nil
        }
        switch self {
        case .mapping(var pairs, let own):
            if let index = pairs.firstIndex(where: { $0.key == key }) {
                if keys.count == 1, value.isNull {
                    pairs.remove(at: index)
                    self = .mapping(pairs, own)
                    return nil
                }
                let failure = pairs[index].value.replace(keys.dropFirst(), with: value, at: mark)
                self = .mapping(pairs, own)
                return failure
            }
            guard keys.count == 1 else {
                let hint = closest(to: key, in: pairs.map(\.key)).map { "; did you mean '\($0)'?" } ?? ""
                return "there is no '\(key)'\(hint)"
            }
            pairs.append((key, mark, value))
            self = .mapping(pairs, own)
            return nil
        case .sequence(var items, let own):
            let index = Int(key) ?? items.firstIndex { $0.isCalled(key) }
            guard let index, items.indices.contains(index) else { return "the list has no item '\(key)'" }
            if keys.count == 1, value.isNull {
                items.remove(at: index)
                self = .sequence(items, own)
                return nil
            }
            let failure = items[index].replace(keys.dropFirst(), with: value, at: mark)
            self = .sequence(items, own)
            return failure
        case .scalar(let text, _):
            return "'\(text)' has nothing below it, so no '\(key)'"
        }
    }

    private var isNull: Bool {
        if case .scalar(let text, _) = self { ["", "null", "~"].contains(text) } else { false }
    }

    private func isCalled(_ key: String) -> Bool {
        for name in ["name", "type"] {
            if case .scalar(let text, _)? = self[name], text == key { return true }
        }
        return false
    }
}
