import Foundation
import Measures
import PipelineCore

/// What one run's folder says, finished or not.
public struct RunReading: Sendable {
    public var folder: String
    public var arm: String
    public var transport: String
    public var repetition: Int
    public var isVirtual: Bool
    /// Whether `summary.json` is there; without it the numbers are computed from what the logs hold so far.
    public var isFinished: Bool
    public var startup: Double?
    public var stallCount: Double?
    /// Seconds.
    public var stallTotal: Double?
    public var stalledPercent: Double?
    /// When the last byte came, in seconds.
    public var finish: Double?
    public var duplicates: Double
    /// Share of the bytes, by source.
    public var shares: [(name: String, share: Double)]
    /// When each chunk was there, in nanoseconds since the first was asked for.
    public var chunkTimes: [UInt64: Int64]
    public var causes: [String]
    public var errors: [String]

    /// Why a folder is no run.
    public struct Unreadable: Error, Sendable, CustomStringConvertible { public var description: String }

    /// Reads a run's folder, as far as it goes.
    public init(folder: String) throws(Unreadable) {
        self.folder = folder
        let run = Self.json(folder + "/run.json")
        guard run != nil || FileManager.default.fileExists(atPath: folder + "/chunks.csv") else {
            throw Unreadable(description: "\(folder): no run is here: neither run.json nor chunks.csv")
        }
        let name = URL(filePath: folder).lastPathComponent
        arm = run?["arm"] as? String ?? name
        transport = run?["transport"] as? String ?? ""
        repetition = run?["repeat"] as? Int ?? 0
        isVirtual = run?["driver"] as? String == "virtual"
        let table = try? ChunkTable(path: folder)
        chunkTimes = [:]
        // Counted from the first request: a real run has connections to make before it.
        let origin = table?.rows.compactMap(\.requested).min() ?? 0
        for row in table?.rows ?? [] {
            if let chunk = row.chunk { chunkTimes[chunk] = min(chunkTimes[chunk] ?? .max, row.done &- origin) }
        }
        let summary = Self.json(folder + "/summary.json")
        isFinished = summary != nil
        errors = summary?["errors"] as? [String] ?? []
        let playout = Self.stage("playout", of: summary)
        func number(_ key: String) -> Double? { (playout?[key] as? NSNumber)?.doubleValue }
        shares = []
        duplicates = 0
        causes = []
        if playout != nil {
            startup = number("startup_delay_ns").map { $0 / 1e9 }
            stallCount = number("stall_count")
            stallTotal = number("stall_total_ns").map { $0 / 1e9 }
            stalledPercent = number("cta2066_stalled_percent")
            finish = number("finish_ns").map { $0 / 1e9 }
            duplicates = number("duplicate_bytes") ?? 0
            shares = (playout?["sources"] as? [[String: Any]] ?? []).map {
                ($0["name"] as? String ?? "?", ($0["share"] as? NSNumber)?.doubleValue ?? 0)
            }
            causes = (playout?["stalls"] as? [[String: Any]] ?? []).compactMap { $0["cause"] as? String }
        } else if let table {
            readUnfinished(table)
        }
    }

    /// What the logs of a run that did not end say.
    private mutating func readUnfinished(_ table: ChunkTable) {
        finish = table.rows.map(\.done).max().map { Double($0) / 1e9 }
        duplicates = Double(table.rows.reduce(0) { $0 &+ $1.duplicateByteCount })
        let total = Double(table.rows.reduce(0) { $0 &+ $1.byteCount })
        var bySource: [String: Double] = [:]
        for row in table.rows { bySource[row.source, default: 0] += Double(row.byteCount) }
        shares = bySource.sorted { $0.key < $1.key }.map { ($0.key, total > 0 ? $0.value / total : 0) }
        guard let data = FileManager.default.contents(atPath: folder + "/buffer.csv") else { return }
        var state = "startup"
        var since: Int64 = 0
        var last: Int64 = 0
        var stalled: Int64 = 0
        var count = 0.0
        var lines = String(decoding: data, as: UTF8.self)
            .split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }
        // What follows the last line end is a line that was cut.
        if !lines.isEmpty { lines.removeLast() }
        for line in lines.dropFirst() {
            let fields = line.split(separator: ",")
            // Times lie between 0 and a century: their differences cannot overflow.
            guard fields.count == 5, let time = Int64(fields[0]), time >= 0, time < 3_155_760_000_000_000_000 else {
                continue
            }
            last = max(last, time)
            guard fields[4] != state else { continue }
            if state == "startup" { startup = Double(time) / 1e9 }
            if state == "stalled" { stalled += max(0, time - since) }
            if fields[4] == "stalled" { count += 1 }
            state = String(fields[4])
            since = time
        }
        if state == "stalled" { stalled += last - since }
        stallCount = count
        stallTotal = Double(stalled) / 1e9
        stalledPercent = last > 0 ? 100 * Double(stalled) / Double(last) : nil
    }

    /// What a stage had to say in a summary, by its name.
    package static func stage(_ name: String, of summary: [String: Any]?) -> [String: Any]? {
        (summary?["pipelines"] as? [String: Any] ?? [:]).values.lazy
            .compactMap { (($0 as? [String: Any])?["stages"] as? [String: Any])?[name] as? [String: Any] }.first
    }

    /// The movie that a run has received into its own folder, if it has.
    package static func receivedMovie(in folder: String) -> String? {
        ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted()
            .first { $0.hasSuffix(".mp4") || $0.hasSuffix(".webm") }.map { folder + "/" + $0 }
    }

    /// A JSON object of a file; `nil` if there is none.
    package static func json(_ path: String) -> [String: Any]? {
        guard let data = FileManager.default.contents(atPath: path) else { return nil }
        return (try? JSONSerialization.jsonObject(with: data)) as? [String: Any]
    }
}
