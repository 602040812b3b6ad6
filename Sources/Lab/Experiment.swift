import Foundation
public import PipelineConfig
public import PipelineCore
public import PipelineRuntime

/// Arms × transports × repeats of one configuration, paired by seed: repeat k of every arm has the same seed.
///
/// ```yaml
/// experiment:
///   base: movie.yaml            # or run: and pipelines: right here, or in the file beside `experiment:`
///   repeats: 5
///   arms:
///     single: { client.stages.0: { type: single } }
///     dual:   { client.stages.0: { type: earliest_delivery } }
///   transports:
///     tcp: {}
///     udp: { client.sources.a.url: "udp://@a/movie.mp4", … }
/// ```
public struct Experiment: Sendable {
    /// One run to be made.
    public struct Trial: Sendable {
        public var arm: String
        /// Empty if the experiment names no transports.
        public var transport: String
        public var repetition: Int
        public var file: RunFile
        /// Its folder's name below the experiment's.
        public var folder: String
    }

    /// Scalar settings of the section.
    struct Settings: StageOptions {
        var repeats: Int
        var seed: UInt64
        var parallel: Int
        var out: String

        init(from reader: inout OptionReader) {
            repeats = reader.read("repeats", default: 1, in: 1...1_000)
            seed = reader.read("seed", default: 1)
            parallel = reader.read("parallel", default: 1, in: 1...64)
            out = reader.read("out", default: "runs")
        }
    }

    public var seed: UInt64
    public var repeats: Int
    /// How many trials run side by side.
    public var parallel: Int
    /// The folder that the experiment's own folder is made in.
    public var out: String
    public var arms: [String]
    /// In the order in which they will run: shuffled by the seed.
    public var trials: [Trial]

    /// Reads the file's `experiment:` and validates every trial's configuration before anything runs.
    ///
    /// - Parameters:
    ///   - load: Reads another file's configuration, for `base: other.yaml`.
    ///   - driver: Replaces `run.driver` in every trial.
    public init?(
        _ root: ConfigNode,
        registry: StageRegistry,
        driver: DriverKind? = nil,
        repeats: Int? = nil,
        load: (String) throws(ConfigProblem) -> ConfigNode,
        problems: inout [ConfigProblem]
    ) {
        let before = problems.count
        guard let section = root["experiment"] else { return nil }
        let structural: Set<String> = ["base", "arms", "transports"]
        var reader = OptionReader(section, ignoring: structural)
        let settings = Settings(from: &reader)
        reader.finish()
        problems += reader.problems
        seed = settings.seed
        self.repeats = repeats ?? settings.repeats
        parallel = settings.parallel
        out = settings.out
        trials = []

        let base = Self.base(of: root, section, load, &problems)
        let armNodes = Self.named(section["arms"], "arms", section.mark, &problems)
        arms = armNodes.map(\.name)
        if armNodes.isEmpty, section["arms"] == nil {
            problems.append(ConfigProblem("an experiment needs 'arms': names with what each changes", at: section.mark))
        }
        let transportNodes =
            section["transports"] == nil ? [] : Self.named(section["transports"], "transports", section.mark, &problems)
        guard let base, problems.count == before else { return nil }

        for transport in transportNodes.isEmpty ? [("", ConfigNode.mapping([], section.mark))] : transportNodes {
            for arm in armNodes {
                let both = [transport.1, arm.overrides].reduce(base) { node, changes in
                    Overrides(changes, problems: &problems).apply(to: node, problems: &problems)
                }
                guard let file = RunFile(both, registry: registry, driver: driver, problems: &problems) else {
                    continue
                }
                for repetition in 0..<self.repeats {
                    var file = file
                    file.settings.seed = seed &+ UInt64(repetition)
                    let name = [arm.name, transport.0, self.repeats > 1 ? "\(repetition)" : ""]
                    trials.append(
                        Trial(
                            arm: arm.name,
                            transport: transport.0,
                            repetition: repetition,
                            file: file,
                            folder: name.filter { !$0.isEmpty }.joined(separator: "-")
                        )
                    )
                }
            }
        }
        // The same fault in every arm's base is one fault.
        var seen: Set<ConfigProblem> = []
        problems = problems.filter { seen.insert($0).inserted }
        guard problems.count == before else { return nil }
        var generator = SeededGenerator(seed: seed)
        trials.shuffle(using: &generator)
    }

    private static func base(
        of root: ConfigNode,
        _ section: ConfigNode,
        _ load: (String) throws(ConfigProblem) -> ConfigNode,
        _ problems: inout [ConfigProblem]
    ) -> ConfigNode? {
        switch section["base"] {
        case nil:
            guard case .mapping(let pairs, let mark) = root else { return nil }
            return .mapping(pairs.filter { $0.key != "experiment" }, mark)
        case .scalar(let path, let mark):
            do throws(ConfigProblem) {
                return try load(path)
            } catch {
                problems.append(error)
                problems.append(ConfigProblem("the base of the experiment", at: mark))
                return nil
            }
        case let node?: return node
        }
    }

    private static func named(
        _ node: ConfigNode?,
        _ key: String,
        _ mark: SourceMark,
        _ problems: inout [ConfigProblem]
    ) -> [(name: String, overrides: ConfigNode)] {
        guard let node else { return [] }
        guard case .mapping(let pairs, _) = node, !pairs.isEmpty else {
            problems.append(ConfigProblem("'\(key)' is a mapping of names to what each changes", at: node.mark))
            return []
        }
        for pair in pairs where pair.key.isEmpty || pair.key.contains("/") || pair.key.hasPrefix(".") {
            problems.append(ConfigProblem("'\(pair.key)' cannot be a folder's name", at: pair.keyMark))
        }
        return pairs.map { ($0.key, $0.value) }
    }

    /// Runs every trial, some side by side, and writes `experiment.json` beside their folders.
    ///
    /// - Parameters:
    ///   - folder: The experiment's own folder, not yet made.
    ///   - began: Called before each trial with how many are done.
    /// - Returns: Each trial's result, in the order of ``trials``; fewer if it was interrupted.
    public func perform(
        in folder: String,
        identity: RunIdentity,
        baseFolder: String,
        control: RunControl,
        progress: @escaping @Sendable (Trial, ProgressBoard) -> Void,
        ended: @escaping @Sendable (Trial, RunResult) -> Void
    ) async throws(StageError) -> [(trial: Trial, result: RunResult)] {
        try Run.makeFolder(folder)
        try Run.write(json(identity), to: folder + "/experiment.json")
        @Sendable func perform(_ index: Int) async -> (Int, Result<RunResult, StageError>) {
            let trial = trials[index]
            var own = identity
            own.arm = trial.arm
            own.transport = trial.transport.isEmpty ? nil : trial.transport
            own.repetition = trial.repetition
            let board = ProgressBoard()
            progress(trial, board)
            let run = Run(
                file: trial.file,
                identity: own,
                folder: folder + "/" + trial.folder,
                baseFolder: baseFolder,
                progress: board
            )
            do throws(StageError) {
                let result = try await run.perform(control: control)
                ended(trial, result)
                return (index, .success(result))
            } catch {
                control.stop()
                return (index, .failure(error))
            }
        }
        let results = await withTaskGroup(of: (Int, Result<RunResult, StageError>).self) { group in
            var results: [(Int, Result<RunResult, StageError>)] = []
            var next = 0
            while next < min(parallel, trials.count) {
                let index = next
                group.addTask { await perform(index) }
                next += 1
            }
            for await result in group {
                results.append(result)
                if next < trials.count, control.state == .running {
                    let index = next
                    group.addTask { await perform(index) }
                    next += 1
                }
            }
            return results.sorted { $0.0 < $1.0 }
        }
        var performed: [(trial: Trial, result: RunResult)] = []
        for (index, result) in results { performed.append((trials[index], try result.get())) }
        return performed
    }

    private func json(_ identity: RunIdentity) -> SummaryValue {
        .object([
            (key: "schema", value: .integer(1)),
            (key: "command", value: .list(identity.command.map { .text($0) })),
            (key: "seed", value: .integer(Int64(bitPattern: seed))),
            (key: "repeats", value: .integer(Int64(repeats))),
            (key: "parallel", value: .integer(Int64(parallel))),
            (key: "arms", value: .list(arms.map { .text($0) })),
            (
                key: "trials",
                value: .list(
                    trials.map { trial in
                        .object([
                            (key: "folder", value: .text(trial.folder)), (key: "arm", value: .text(trial.arm)),
                            (key: "transport", value: .text(trial.transport)),
                            (key: "repeat", value: .integer(Int64(trial.repetition))),
                            (key: "driver", value: .text(trial.file.settings.driver.rawValue)),
                        ])
                    }
                )
            ),
            (key: "config", value: .text(identity.configuration)),
        ])
    }
}
