public import Foundation
import MeasureStages
public import PipelineConfig
public import PipelineCore
public import PipelineRuntime

/// What identifies a run besides its configuration.
public struct RunIdentity: Sendable {
    /// The command line that asked for it.
    public var command: [String]
    /// The text of the configuration.
    public var configuration: String
    public var arm: String?
    public var transport: String?
    public var repetition: Int?

    public init(
        command: [String],
        configuration: String,
        arm: String? = nil,
        transport: String? = nil,
        repetition: Int? = nil
    ) {
        self.command = command
        self.configuration = configuration
        self.arm = arm
        self.transport = transport
        self.repetition = repetition
    }
}

/// How a run ended.
public struct RunResult: Sendable {
    /// Where its logs are; `nil` if it wrote none.
    public var folder: String?
    public var outcomes: [RunOutcome]
    /// Whether somebody ended it before it had ended by itself.
    public var wasInterrupted: Bool

    /// What went wrong, each once.
    public var errors: [StageError] {
        var seen: Set<String> = []
        return outcomes.flatMap(\.errors).filter { seen.insert("\($0)").inserted }
    }
}

/// Runs one file: makes the run's folder, drives the lanes, writes `summary.json` last, by rename.
///
/// The folder: `run.json`, what the stages write (`chunks.csv`, `buffer.csv`), `events.jsonl`, `summary.json`. It is
/// readable at any moment; a `summary.json` means that the run ended by itself or was ended in good order.
public struct Run: Sendable {
    public var file: RunFile
    public var identity: RunIdentity
    /// The run's own folder, not yet made; `nil` writes none.
    public var folder: String?
    /// What relative paths in the file are relative to.
    public var baseFolder: String
    /// Told what is going on, if anybody is to see it.
    public var progress: ProgressBoard?
    /// Where the pipelines tell each other what they are bound to.
    public var addresses = AddressBoard()
    /// Where its sinks make known what they write, for those who read it meanwhile.
    public var files = FileBoard()

    public init(
        file: RunFile,
        identity: RunIdentity,
        folder: String?,
        baseFolder: String,
        progress: ProgressBoard? = nil
    ) {
        self.file = file
        self.identity = identity
        self.folder = folder
        self.baseFolder = baseFolder
        self.progress = progress
    }

    /// Runs to the end.
    ///
    /// - Throws: ``StageError/Code/outputFailed`` if the folder cannot be made. What happens after that is in the result.
    public func perform(control: RunControl = RunControl()) async throws(StageError) -> RunResult {
        let origin = RealTimeDriver.monotonicNanoseconds()
        let originRealtime = RealTimeDriver.realtimeNanoseconds()
        if let folder {
            try Self.makeFolder(folder)
            try Self.write(runJSON(origin, originRealtime), to: folder + "/run.json")
        }
        let surroundings = RunSurroundings(
            seed: file.settings.seed,
            runFolder: folder.map(Self.absolute),
            baseFolder: baseFolder,
            addresses: addresses,
            files: files
        )
        let isVirtual = file.settings.driver == .virtual
        var isFirst = true
        let makers = file.pipelines.map { plan in
            let eventName = isFirst && !plan.demands.isService ? "events.jsonl" : "events-\(plan.name).jsonl"
            if !plan.demands.isService { isFirst = false }
            let eventPath = folder.map { $0 + "/" + eventName }
            let progress = plan.demands.isService ? nil : progress
            return LaneMaker(isService: plan.demands.isService) {
                var observers: [any Observer] = []
                if let eventPath, !plan.sources.isEmpty {
                    observers.append(
                        EventLog(eventPath, pipeline: plan.name, sources: plan.sources) {
                            if isVirtual { return (0, 0) }
                            return (RealTimeDriver.monotonicNanoseconds(), RealTimeDriver.realtimeNanoseconds())
                        }
                    )
                }
                if let progress { observers.append(ProgressObserver(progress, sources: plan.sources)) }
                return plan.build(surroundings, observers: observers)
            }
        }
        let outcomes: [RunOutcome]
        switch file.settings.driver {
        case .virtual:
            outcomes = VirtualTimeDriver().run(makers.map { $0.make() }, limits: file.settings.limits, control: control)
        case .real:
            outcomes = await RealTimeDriver(spinWindow: file.settings.spin).run(
                makers,
                limits: file.settings.limits,
                origin: origin,
                control: control
            )
        }
        for file in files.files { file.update { $0.hasEnded = true } }
        let result = RunResult(
            folder: folder,
            outcomes: outcomes,
            wasInterrupted: control.state != .running
                && !outcomes.contains { if case .failed = $0.reason { true } else { false } }
        )
        if let folder { try Self.write(summaryJSON(result), to: folder + "/summary.json") }
        return result
    }

    // MARK: What is written

    private func runJSON(_ origin: UInt64, _ originRealtime: UInt64) -> SummaryValue {
        let sources = file.pipelines.flatMap(\.sources).map { source in
            SummaryValue.object([
                (key: "name", value: .text(source.name)), (key: "url", value: .text(source.url)),
                (key: "rate_bps", value: source.rate.map { .integer(Int64(clamping: $0.bitsPerSecond)) } ?? .null),
            ])
        }
        return .object([
            (key: "schema", value: .integer(1)),
            (key: "command", value: .list(identity.command.map { .text($0) })),
            (key: "arm", value: identity.arm.map { .text($0) } ?? .null),
            (key: "transport", value: identity.transport.map { .text($0) } ?? .null),
            (key: "repeat", value: identity.repetition.map { .integer(Int64($0)) } ?? .null),
            (key: "driver", value: .text(file.settings.driver.rawValue)),
            (key: "seed", value: .integer(Int64(bitPattern: file.settings.seed))),
            (key: "origin_monotonic_ns", value: .integer(Int64(clamping: origin))),
            (key: "origin_realtime_ns", value: .integer(Int64(clamping: originRealtime))),
            (key: "tributary_version", value: .text(tributaryVersion)),
            (key: "host", value: .text(ProcessInfo.processInfo.hostName)),
            // One value for each boot of a machine: whose logs share a clock.
            (key: "boot_id", value: Self.bootID.map { .text($0) } ?? .null),
            (key: "system", value: .text(ProcessInfo.processInfo.operatingSystemVersionString)),
            (key: "processors", value: .integer(Int64(ProcessInfo.processInfo.activeProcessorCount))),
            (key: "sources", value: .list(sources)),
            (key: "config", value: .text(identity.configuration)),
        ])
    }

    private func summaryJSON(_ result: RunResult) -> SummaryValue {
        let pipelines = result.outcomes.map { outcome in
            var fields: [(key: String, value: SummaryValue)] = [
                (key: "reason", value: .text(outcome.reason.word)),
                (key: "ended_ns", value: .integer(outcome.ended.nanoseconds)),
            ]
            if case .object(let more) = outcome.summary { fields += more }
            return (key: outcome.name, value: SummaryValue.object(fields))
        }
        return .object([
            (key: "schema", value: .integer(1)),
            (key: "finished", value: .boolean(!result.wasInterrupted && result.errors.isEmpty)),
            (key: "interrupted", value: .boolean(result.wasInterrupted)),
            (key: "errors", value: .list(result.errors.map { .text("\($0)") })),
            (key: "pipelines", value: .object(pipelines)),
        ])
    }

    private static var bootID: String? {
        FileManager.default.contents(atPath: "/proc/sys/kernel/random/boot_id")
            .map { String(decoding: $0, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines) }
    }

    // MARK: Files

    /// Makes a folder and those it stands in.
    static func makeFolder(_ path: String) throws(StageError) {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw StageError(.outputFailed, "cannot make the folder '\(path)': \(Self.reason(error))")
        }
    }

    /// Writes a value as JSON, whole or not at all.
    static func write(_ value: SummaryValue, to path: String) throws(StageError) {
        do {
            try Data((value.indentedJSON() + "\n").utf8).write(to: URL(filePath: path), options: .atomic)
        } catch {
            throw StageError(.outputFailed, "cannot write '\(path)': \(Self.reason(error))")
        }
    }

    static func reason(_ error: any Error) -> String {
        if let underlying = (error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError {
            return unsafe String(cString: strerror(CInt(underlying.code)))
        }
        return error.localizedDescription
    }

    public static func absolute(_ path: String) -> String {
        URL(filePath: path, relativeTo: URL(filePath: FileManager.default.currentDirectoryPath + "/")).path
    }

    /// A folder name that sorts by time and does not collide: `2026-11-22T085012Z-dual-7f3a`.
    public static func folderName(_ title: String, at date: Date = Date()) -> String {
        let formatter = ISO8601DateFormatter()
        let stamp = formatter.string(from: date).replacing(":", with: "")
        let tail = String(UInt16.random(in: .min ... .max) | 0x1000, radix: 16)
        let safe = title.map { $0.isLetter || $0.isNumber || $0 == "-" || $0 == "_" ? $0 : "-" }
        return "\(stamp)-\(String(safe))-\(tail)"
    }
}

/// The version that runs write into their folders.
public let tributaryVersion = "0.1.0"

extension RunOutcome.Reason {
    /// The reason in one word, for `summary.json`.
    public var word: String {
        switch self {
        case .captureEnded: "ended"
        case .durationReached: "duration"
        case .drained: "drained"
        case .stopped: "stopped"
        case .failed: "failed"
        }
    }
}
