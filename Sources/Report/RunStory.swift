import Foundation
import Lab
import PipelineCore

/// What one run's folder has to show: when the player played and why it did not, and which bytes came when.
struct RunStory {
    /// A stretch of the run in which the player did one thing.
    struct Segment {
        enum State: String { case startup, playing, stalled, ended }
        var state: State
        /// Nanoseconds of the run.
        var begin: Int64
        var end: Int64
        /// Media time at its beginning, in nanoseconds.
        var media: Int64
        /// Why it stalled.
        var cause: String?
    }

    var title: String
    var arm: String
    var transport: String
    var folder: String
    var sources: [String]
    var segments: [Segment] = []
    var table: ChunkTable
    /// Media ahead of the playhead: run time and level in nanoseconds.
    var buffer: [(time: Int64, level: Int64)] = []
    /// Bytes without a gap from the object's start, and bytes that have been played.
    var frontier: [(time: Int64, contiguous: Int64)] = []
    var played: [(time: Int64, byteCount: Int64)] = []
    var objectByteCount: Int64
    var mediaLength: Int64
    var reading: RunReading
    var run: [String: Any]
    var crosscheck: [String: Any]?

    /// Reads a folder, finished or not.
    init(folder: String) throws(RunReading.Unreadable) {
        self.folder = folder
        reading = try RunReading(folder: folder)
        run = RunReading.json(folder + "/run.json") ?? [:]
        crosscheck = RunReading.json(folder + "/crosscheck.json")
        arm = reading.arm
        transport = reading.transport
        title = transport.isEmpty ? arm : "\(arm) over \(transport)"
        table = (try? ChunkTable(path: folder)) ?? ChunkTable(data: Data(), file: folder)
        let named = (run["sources"] as? [[String: Any]] ?? []).compactMap { $0["name"] as? String }
        // A server's name may stand in the log alone.
        sources = named
        for row in table.rows where !sources.contains(row.source) { sources.append(row.source) }
        let summary = RunReading.json(folder + "/summary.json") ?? [:]
        let stages = (summary["pipelines"] as? [String: Any] ?? [:]).values
            .compactMap { ($0 as? [String: Any])?["stages"] as? [String: Any] }
        let playout = stages.compactMap { $0["playout"] as? [String: Any] }.first ?? [:]
        let movie = stages.compactMap { $0["movie"] as? [String: Any] }.first ?? [:]
        mediaLength = max(0, min(1 << 60, (playout["media_ns"] as? NSNumber)?.int64Value ?? 0))
        objectByteCount =
            (movie["object_bytes"] as? NSNumber)?.int64Value
            ?? Int64(clamping: table.rows.reduce(0) { $0 &+ $1.byteCount })
        objectByteCount = max(0, min(1 << 60, objectByteCount))
        readBuffer(folder)
        readEvents(folder)
    }

    private mutating func readBuffer(_ folder: String) {
        guard let data = FileManager.default.contents(atPath: folder + "/buffer.csv") else { return }
        var last: (contiguous: Int64, played: Int64) = (-1, -1)
        for line in data.split(separator: UInt8(ascii: "\n")).dropFirst() {
            let fields = line.split(separator: UInt8(ascii: ","))
            guard fields.count == 5, let time = Int64(text: fields[0]), let contiguous = Int64(text: fields[1]),
                let playable = Int64(text: fields[2]), let played = Int64(text: fields[3]),
                time >= 0, time < 1 << 60, playable.magnitude < 1 << 60, played.magnitude < 1 << 60
            else { continue }
            buffer.append((time, max(0, playable - played)))
            if contiguous != last.contiguous { frontier.append((time, contiguous)) }
            if played != last.played, mediaLength > 0 {
                let share = min(1, Double(played) / Double(mediaLength))
                self.played.append((time, Int64(share * Double(objectByteCount))))
            }
            last = (contiguous, played)
        }
    }

    /// What the player did, from the event log; it is there while the run goes on.
    private mutating func readEvents(_ folder: String) {
        guard let data = FileManager.default.contents(atPath: folder + "/events.jsonl") else { return }
        var open = Segment(state: .startup, begin: 0, end: 0, media: 0)
        var latest: Int64 = buffer.last?.time ?? 0
        for line in data.split(separator: UInt8(ascii: "\n")) {
            guard let event = (try? JSONSerialization.jsonObject(with: line)) as? [String: Any],
                let time = (event["t_ns"] as? NSNumber)?.int64Value, (0..<1 << 60).contains(time),
                let type = event["type"] as? String
            else { continue }
            let state: Segment.State? =
                switch type {
                case "playback_start", "stall_end": .playing
                case "stall_begin": .stalled
                case "playback_end": .ended
                default: nil
                }
            guard let state, open.state != .ended else { continue }
            open.end = max(open.begin, time)
            segments.append(open)
            let media = max(0, min(1 << 60, (event["media_ns"] as? NSNumber)?.int64Value ?? open.media))
            open = Segment(state: state, begin: open.end, end: open.end, media: media, cause: event["cause"] as? String)
            latest = max(latest, time)
        }
        if open.state != .ended { open.end = max(open.begin, latest) }
        segments.append(open)
        nameCauses()
    }

    /// The summary knows the causes of stalls; the event log of a run that goes on need not.
    private mutating func nameCauses() {
        var causes = reading.causes[...]
        for index in segments.indices where segments[index].state == .stalled {
            let known = causes.popFirst()
            segments[index].cause = segments[index].cause ?? known
        }
    }

    /// When the last thing happened: the end of the page's time.
    var end: Int64 { max(segments.last?.end ?? 0, table.rows.map(\.done).max() ?? 0) }

    /// Seconds of stalls, the start-up not counted.
    var stallTotal: Double {
        reading.stallTotal ?? segments.reduce(0) { $0 + ($1.state == .stalled ? Double($1.end - $1.begin) / 1e9 : 0) }
    }
}

extension Int64 {
    /// A number of a log's line.
    fileprivate init?(text bytes: Data) {
        self.init(String(decoding: bytes, as: UTF8.self))
    }
}
