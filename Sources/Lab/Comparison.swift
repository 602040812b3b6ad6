import Foundation
import Measures
public import PipelineCore

/// Runs side by side: arms in rows, medians over repeats, the difference to the first arm with its interval.
public struct Comparison: Sendable {
    /// The runs of one arm over one transport.
    public struct Group: Sendable {
        public var arm: String
        public var transport: String
        public var runs: [RunReading]

        func middle(_ value: (RunReading) -> Double?) -> Double? { median(runs.compactMap(value)) }
    }

    public private(set) var groups: [Group] = []
    /// Folders that could not be read, with why.
    public private(set) var problems: [String] = []
    private let seed: UInt64

    /// From so many repeats on, intervals are given.
    public static let repeatsForInterval = 5

    /// Reads run folders and experiment folders.
    public init(paths: [String], seed: UInt64 = 1) {
        self.seed = seed
        var folders: [String] = []
        var order: [String] = []
        for path in paths {
            guard let experiment = RunReading.json(path + "/experiment.json") else {
                folders.append(path)
                continue
            }
            order += experiment["arms"] as? [String] ?? []
            let trials = experiment["trials"] as? [[String: Any]] ?? []
            // Trials that an interrupted experiment did not come to have no folder.
            folders += trials.compactMap { $0["folder"] as? String }.map { path + "/" + $0 }
                .filter { FileManager.default.fileExists(atPath: $0) }
        }
        for folder in folders {
            do throws(RunReading.Unreadable) {
                let run = try RunReading(folder: folder)
                let index = groups.firstIndex { $0.arm == run.arm && $0.transport == run.transport }
                if let index {
                    groups[index].runs.append(run)
                } else {
                    groups.append(Group(arm: run.arm, transport: run.transport, runs: [run]))
                }
            } catch {
                problems.append(error.description)
            }
        }
        for index in groups.indices { groups[index].runs.sort { $0.repetition < $1.repetition } }
        func place(_ group: Group) -> (String, Int) { (group.transport, order.firstIndex(of: group.arm) ?? .max) }
        if !order.isEmpty { groups.sort { place($0) < place($1) } }
    }

    /// The group that predicts another: the same arm under virtual time.
    private func prediction(of group: Group) -> Group? {
        guard group.runs.contains(where: { !$0.isVirtual }) else { return nil }
        return groups.first { $0.arm == group.arm && $0.runs.allSatisfy(\.isVirtual) }
    }

    /// The first arm over the same transport.
    private func baseline(of group: Group) -> Group? {
        guard let first = groups.first(where: { $0.transport == group.transport }), first.arm != group.arm else {
            return nil
        }
        return first
    }

    /// Total stall of a group less that of the first arm, by repeat.
    private func differences(_ group: Group) -> [(Double, Double)] {
        guard let baseline = baseline(of: group) else { return [] }
        return group.runs.compactMap { run in
            guard let other = baseline.runs.first(where: { $0.repetition == run.repetition }),
                let a = other.stallTotal, let b = run.stallTotal
            else { return nil }
            return (a, b)
        }
    }

    /// How far the chunks of a run came from when they were predicted: median and 95th percentile of the absolute error.
    private func chunkErrors(_ group: Group, _ prediction: Group) -> (median: Double, p95: Double)? {
        guard let predicted = prediction.runs.first?.chunkTimes else { return nil }
        let errors = group.runs.flatMap { run in
            run.chunkTimes.compactMap { chunk, time in predicted[chunk].map { abs(Double(time - $0)) / 1e9 } }
        }
        guard let middle = median(errors), let high = quantile(errors, 0.95) else { return nil }
        return (middle, high)
    }

    // MARK: Text

    private func seconds(_ value: Double?) -> String { value.map { String(format: "%.3f", $0) } ?? "-" }

    /// The table for people.
    public var text: String {
        let hasTransport = groups.contains { !$0.transport.isEmpty }
        let hasPrediction = groups.contains { prediction(of: $0) != nil }
        let hasRepeats = groups.contains { $0.runs.count > 1 }
        var header = ["arm"]
        if hasTransport { header.append("over") }
        if hasRepeats { header.append("n") }
        header += ["startup s", "stalls", "stall s", "stalled %", "finish s", "shares"]
        if groups.contains(where: { baseline(of: $0) != nil }) { header.append("stall - first") }
        if hasPrediction { header += ["predicted s", "chunk error p50", "p95"] }
        var table = TextTable(header: header)
        for group in groups {
            var row = [group.arm]
            if hasTransport { row.append(group.transport) }
            if hasRepeats { row.append("\(group.runs.count)") }
            let unfinished = group.runs.contains { !$0.isFinished } ? " (unfinished)" : ""
            let failed = group.runs.contains { !$0.errors.isEmpty } ? " (failed)" : ""
            row += [
                seconds(group.middle(\.startup)), group.middle(\.stallCount).map { String(format: "%.0f", $0) } ?? "-",
                seconds(group.middle(\.stallTotal)),
                group.middle(\.stalledPercent).map { String(format: "%.2f", $0) } ?? "-",
                seconds(group.middle(\.finish)) + unfinished + failed, shares(group),
            ]
            if header.contains("stall - first") { row.append(difference(group)) }
            if hasPrediction {
                if let prediction = prediction(of: group) {
                    let errors = chunkErrors(group, prediction)
                    row += [seconds(prediction.middle(\.stallTotal)), seconds(errors?.median), seconds(errors?.p95)]
                } else {
                    row += ["-", "-", "-"]
                }
            }
            table.append(row)
        }
        return table.text
    }

    private func shares(_ group: Group) -> String {
        guard let first = group.runs.first else { return "-" }
        return first.shares.map { share in
            let values = group.runs.compactMap { $0.shares.first { $0.name == share.name }?.share }
            return "\(share.name) \(String(format: "%.0f", 100 * (median(values) ?? 0)))%"
        }.joined(separator: " ")
    }

    private func difference(_ group: Group) -> String {
        let pairs = differences(group)
        guard let middle = median(pairs.map { $0.1 - $0.0 }) else { return "-" }
        let value = String(format: "%+.3f", middle)
        guard pairs.count >= Self.repeatsForInterval, let interval = pairedBootstrap(pairs, seed: seed) else {
            return pairs.count > 1 ? "\(value) (n=\(pairs.count))" : value
        }
        return value + String(format: " [%+.3f, %+.3f]", interval.lowerBound, interval.upperBound)
    }

    // MARK: JSON

    /// The same for machines.
    public var json: SummaryValue {
        func number(_ value: Double?) -> SummaryValue { value.map { .number($0) } ?? .null }
        let rows = groups.map { group in
            let pairs = differences(group)
            let interval = pairs.count >= Self.repeatsForInterval ? pairedBootstrap(pairs, seed: seed) : nil
            let prediction = prediction(of: group)
            let errors = prediction.flatMap { chunkErrors(group, $0) }
            return SummaryValue.object([
                (key: "arm", value: .text(group.arm)), (key: "transport", value: .text(group.transport)),
                (key: "runs", value: .integer(Int64(group.runs.count))),
                (key: "unfinished_runs", value: .integer(Int64(group.runs.count { !$0.isFinished }))),
                (key: "failed_runs", value: .integer(Int64(group.runs.count { !$0.errors.isEmpty }))),
                (key: "startup_s", value: number(group.middle(\.startup))),
                (key: "stall_count", value: number(group.middle(\.stallCount))),
                (key: "stall_total_s", value: number(group.middle(\.stallTotal))),
                (key: "cta2066_stalled_percent", value: number(group.middle(\.stalledPercent))),
                (key: "finish_s", value: number(group.middle(\.finish))),
                (key: "duplicate_bytes", value: number(group.middle(\.duplicates))),
                (
                    key: "shares",
                    value: .object((group.runs.first?.shares ?? []).map { (key: $0.name, value: .number($0.share)) })
                ),
                (key: "stall_difference_s", value: number(median(pairs.map { $0.1 - $0.0 }))),
                (
                    key: "stall_difference_95",
                    value: interval.map { .list([.number($0.lowerBound), .number($0.upperBound)]) } ?? .null
                ),
                (key: "predicted_stall_total_s", value: number(prediction?.middle(\.stallTotal))),
                (key: "chunk_error_median_s", value: number(errors?.median)),
                (key: "chunk_error_p95_s", value: number(errors?.p95)),
                (key: "folders", value: .list(group.runs.map { .text($0.folder) })),
            ])
        }
        return .object([
            (key: "groups", value: .list(rows)), (key: "problems", value: .list(problems.map { .text($0) })),
        ])
    }
}
