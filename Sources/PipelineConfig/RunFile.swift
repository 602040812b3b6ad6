public import PipelineCore
public import PipelineRuntime

/// Which kind of time a run has.
public enum DriverKind: String, OptionChoice {
    /// Threads, sockets and the machine's clock.
    case real
    /// A timeline that jumps from event to event, repeatable to the nanosecond.
    case virtual
}

/// The `run:` section of a file: everything about a run that is not in a pipeline.
public struct RunSettings: StageOptions {
    public var driver: DriverKind
    /// When captures are asked no more.
    public var duration: Duration
    /// How long what is inside may then flow out.
    public var drain: Duration
    public var seed: UInt64
    /// How long before a deadline a lane stops sleeping and spins (`real` only).
    public var spin: Duration
    /// The folder a run writes into; `nil` writes none.
    public var out: String?

    public init(from reader: inout OptionReader) {
        driver = reader.read("driver", default: .real)
        duration = reader.read("duration", default: .seconds(3600))
        drain = reader.read("drain", default: .seconds(2))
        seed = reader.read("seed", default: 1)
        spin = reader.read("spin", default: .zero, in: .zero...(.milliseconds(10)))
        out = reader.optional("out")
    }

    public init() {
        var reader = OptionReader.describing()
        self.init(from: &reader)
    }

    public var limits: RunLimits { RunLimits(duration: duration, drain: drain) }
}

/// A configuration file that has been read and found good: settings and pipelines, nothing built or opened yet.
public struct RunFile: Sendable {
    public var settings: RunSettings
    public var pipelines: [PipelinePlan]

    /// Reads a whole file. Every problem is added to `problems`, in order of place; `nil` if there was any.
    ///
    /// - Parameters:
    ///   - driver: Replaces `run.driver`, as `--driver` does.
    ///   - extraKeys: Top-level keys that somebody else reads, such as `experiment`.
    public init?(
        _ root: ConfigNode,
        registry: StageRegistry,
        driver: DriverKind? = nil,
        extraKeys: Set<String> = [],
        problems: inout [ConfigProblem]
    ) {
        var found: [ConfigProblem] = []
        defer { problems += found.sorted { ($0.mark.line, $0.mark.column) < ($1.mark.line, $1.mark.column) } }
        guard case .mapping(let pairs, let mark) = root else {
            found.append(ConfigProblem("a file is a mapping with 'pipelines' and, if need be, 'run'", at: root.mark))
            return nil
        }
        settings = RunSettings()
        pipelines = []
        var names: [String: ConfigNode] = [:]
        for (key, keyMark, value) in pairs {
            switch key {
            case "run":
                var reader = OptionReader(value, ignoring: [])
                settings = RunSettings(from: &reader)
                reader.finish()
                found += reader.problems
            case "pipelines":
                guard case .mapping(let entries, _) = value, !entries.isEmpty else {
                    found.append(ConfigProblem("'pipelines' is a mapping of names to pipelines", at: value.mark))
                    continue
                }
                for (name, nameMark, node) in entries {
                    if name.isEmpty || name.contains("/") || name.contains("@") {
                        found.append(
                            ConfigProblem("a pipeline's name has no '/' and no '@', found '\(name)'", at: nameMark)
                        )
                    }
                    names[name] = node
                    if let plan = PipelinePlan(name: name, node: node, registry: registry, problems: &found) {
                        pipelines.append(plan)
                    }
                }
            case _ where extraKeys.contains(key): break
            default:
                let hint = hint(for: key, among: ["run", "pipelines"] + extraKeys.sorted())
                found.append(ConfigProblem("unknown key '\(key)'\(hint)", at: keyMark))
            }
        }
        if root["pipelines"] == nil { found.append(ConfigProblem("the file has no 'pipelines'", at: mark)) }
        if let driver { settings.driver = driver }
        checkTogether(names, &found)
        if !found.isEmpty { return nil }
    }

    /// What no pipeline can see alone: ports, links between pipelines, time.
    private func checkTogether(_ names: [String: ConfigNode], _ problems: inout [ConfigProblem]) {
        var listeners: [String: SourceMark] = [:]
        for plan in pipelines {
            for part in plan.parts {
                if settings.driver == .virtual, part.demands.needsRealTime {
                    problems.append(
                        ConfigProblem(
                            "'\(part.typeName)' needs sockets and real time; the driver is virtual",
                            at: part.mark
                        )
                    )
                }
                guard let address = part.demands.listensAt, !address.hasSuffix(":0") else { continue }
                if let other = listeners[address] {
                    problems.append(
                        ConfigProblem(
                            "listens at \(address), as does the stage at \(other.line):\(other.column)",
                            at: part.mark
                        )
                    )
                } else {
                    listeners[address] = part.mark
                }
            }
        }
        // Links: a source names the pipeline that serves it.
        var links: [String: [(to: String, mark: SourceMark)]] = [:]
        for plan in pipelines {
            for (source, mark) in zip(plan.sources, plan.sourceMarks) {
                guard let (scheme, name) = source.linkedPipeline else { continue }
                links[plan.name, default: []].append((name, mark))
                guard names[name] != nil else {
                    problems.append(
                        ConfigProblem(
                            "no pipeline is called '\(name)'\(hint(for: name, among: names.keys.sorted()))",
                            at: mark
                        )
                    )
                    continue
                }
                if let other = pipelines.first(where: { $0.name == name }),
                    !other.parts.contains(where: { $0.demands.listensAt?.hasPrefix(scheme + " ") == true })
                {
                    problems.append(ConfigProblem("pipeline '\(name)' does not listen for \(scheme)", at: mark))
                }
            }
        }
        for (name, targets) in links.sorted(by: { $0.key < $1.key }) {
            for target in targets {
                guard let path = Self.path(from: target.to, to: name, along: links, visited: []) else { continue }
                let cycle = ([name] + path).joined(separator: " → ")
                problems.append(ConfigProblem("the links between pipelines form a cycle: \(cycle)", at: target.mark))
            }
        }
    }

    private static func path(
        from start: String,
        to end: String,
        along links: [String: [(to: String, mark: SourceMark)]],
        visited: Set<String>
    ) -> [String]? {
        if start == end { return [start] }
        guard !visited.contains(start) else { return nil }
        for next in links[start] ?? [] {
            if let rest = path(from: next.to, to: end, along: links, visited: visited.union([start])) {
                return [start] + rest
            }
        }
        return nil
    }
}

/// `"; did you mean 'x'?"`, or what is known, or nothing.
func hint(for word: String, among known: [String]) -> String {
    if let near = closest(to: word, in: known) { return "; did you mean '\(near)'?" }
    return known.isEmpty ? "" : "; known: \(known.joined(separator: ", "))"
}
