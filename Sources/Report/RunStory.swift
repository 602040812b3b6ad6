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

    var arm: String
    var transport: String
    var folder: String
    var sources: [String]
    private var closed: [Segment] = []
    var table: ChunkTable
    /// Media ahead of the playhead: run time and level in nanoseconds.
    var buffer: [(time: Int64, level: Int64)] = []
    /// Bytes without a gap from the object's start, and bytes that have been played.
    var frontier: [(time: Int64, contiguous: Int64)] = []
    var played: [(time: Int64, byteCount: Int64)] = []
    var objectByteCount: Int64
    var mediaLength: Int64
    /// What the whole folder says; `nil` while it is read as it grows.
    var reading: RunReading?
    var run: [String: Any]
    var crosscheck: [String: Any]?

    /// What the player has done since the last change of state.
    private var open = Segment(state: .startup, begin: 0, end: 0, media: 0)
    /// When the last thing happened that the event log and the buffer's know of.
    private(set) var latest: Int64 = 0
    private var lastLevel: (contiguous: Int64, played: Int64) = (-1, -1)
    /// The fewest bytes from the start with which so much could be played, as the log has it.
    private var needed: [(playable: Int64, contiguous: Int64)] = []

    /// Reads a folder, finished or not.
    init(folder: String) throws(RunReading.Unreadable) {
        let reading = try RunReading(folder: folder)
        self.init(begun: folder)
        self.reading = reading
        arm = reading.arm
        transport = reading.transport
        table = (try? ChunkTable(path: folder)) ?? table
        for row in table.rows where !sources.contains(row.source) { sources.append(row.source) }
        readSummary()
        if objectByteCount == 0 {
            objectByteCount = min(1 << 60, Int64(clamping: table.rows.reduce(0) { $0 &+ $1.byteCount }))
        }
        func lines(_ name: String) -> [Data] {
            (FileManager.default.contents(atPath: folder + "/" + name) ?? Data()).split(separator: UInt8(ascii: "\n"))
        }
        for line in lines("buffer.csv") { takeLevel(line) }
        for line in lines("events.jsonl") { takeEvent(line) }
        nameCauses()
    }

    /// A folder of which only `run.json` is read: its logs are to come.
    init(begun folder: String) {
        self.folder = folder
        run = RunReading.json(folder + "/run.json") ?? [:]
        arm = run["arm"] as? String ?? URL(filePath: folder).lastPathComponent
        transport = run["transport"] as? String ?? ""
        table = ChunkTable(data: Data(), file: folder)
        sources = (run["sources"] as? [[String: Any]] ?? []).compactMap { $0["name"] as? String }
        objectByteCount = 0
        mediaLength = 0
    }

    var title: String { transport.isEmpty ? arm : "\(arm) over \(transport)" }

    /// What only the end of a run tells.
    mutating func readSummary() {
        crosscheck = RunReading.json(folder + "/crosscheck.json")
        let summary = RunReading.json(folder + "/summary.json")
        let playout = RunReading.stage("playout", of: summary) ?? [:]
        let movie = RunReading.stage("movie", of: summary) ?? [:]
        if let length = (playout["media_ns"] as? NSNumber)?.int64Value { mediaLength = max(0, min(1 << 60, length)) }
        if let count = (movie["object_bytes"] as? NSNumber)?.int64Value {
            objectByteCount = max(0, min(1 << 60, count))
        }
    }

    /// Takes a line of `buffer.csv`.
    mutating func takeLevel(_ line: Data) {
        let fields = line.split(separator: UInt8(ascii: ","))
        guard fields.count == 5, let time = Int64(text: fields[0]), let contiguous = Int64(text: fields[1]),
            let playable = Int64(text: fields[2]), let played = Int64(text: fields[3]),
            (0..<1 << 60).contains(time), (0..<1 << 60).contains(contiguous), playable.magnitude < 1 << 60,
            played.magnitude < 1 << 60
        else { return }
        latest = max(latest, time)
        buffer.append((time, max(0, playable - played)))
        if playable > needed.last?.playable ?? 0 { needed.append((playable, contiguous)) }
        if contiguous != lastLevel.contiguous { frontier.append((time, contiguous)) }
        if played != lastLevel.played { self.played.append((time, byteCount(played: played))) }
        lastLevel = (contiguous, played)
    }

    /// The bytes that play up to a media time has used: the log itself says how many made it playable.
    private func byteCount(played: Int64) -> Int64 {
        guard played > 0 else { return 0 }
        var (low, high) = (0, needed.count)
        while low < high {
            let middle = (low + high) / 2
            if needed[middle].playable < played { low = middle + 1 } else { high = middle }
        }
        guard low < needed.count else { return needed.last?.contiguous ?? 0 }
        // Between two steps in proportion.
        let (to, from) = (needed[low], low > 0 ? needed[low - 1] : (playable: 0, contiguous: 0))
        let share = Double(played - from.playable) / Double(to.playable - from.playable)
        return from.contiguous + Int64(share * Double(to.contiguous - from.contiguous))
    }

    /// Takes a line of the event log.
    mutating func takeEvent(_ line: Data) {
        guard let event = (try? JSONSerialization.jsonObject(with: line)) as? [String: Any],
            let time = (event["t_ns"] as? NSNumber)?.int64Value, (0..<1 << 60).contains(time),
            let type = event["type"] as? String
        else { return }
        if type == "object", let count = (event["bytes"] as? NSNumber)?.int64Value, objectByteCount == 0 {
            objectByteCount = max(0, min(1 << 60, count))
        }
        let state: Segment.State? =
            switch type {
            case "playback_start", "stall_end": .playing
            case "stall_begin": .stalled
            case "playback_end": .ended
            default: nil
            }
        guard let state, open.state != .ended else { return }
        open.end = max(open.begin, time)
        closed.append(open)
        let media = max(0, min(1 << 60, (event["media_ns"] as? NSNumber)?.int64Value ?? open.media))
        open = Segment(state: state, begin: open.end, end: open.end, media: media, cause: event["cause"] as? String)
        latest = max(latest, time)
    }

    /// What the player did, up to now.
    var segments: [Segment] {
        var last = open
        if last.state != .ended { last.end = max(last.begin, latest) }
        return closed + [last]
    }

    /// The summary knows the causes of stalls; the event log of a run that goes on need not.
    private mutating func nameCauses() {
        var causes = (reading?.causes ?? [])[...]
        for index in closed.indices where closed[index].state == .stalled {
            let known = causes.popFirst()
            closed[index].cause = closed[index].cause ?? known
        }
        if open.state == .stalled { open.cause = open.cause ?? causes.first }
    }

    /// When the last thing happened: the end of the page's time.
    var end: Int64 { max(segments.last?.end ?? 0, table.rows.reduce(0) { max($0, $1.done) }) }

    /// How often it stalled.
    var stallCount: Int {
        reading?.stallCount.map { Int(whole: $0) } ?? segments.count { $0.state == .stalled }
    }

    /// Seconds of stalls, the start-up not counted.
    var stallTotal: Double {
        reading?.stallTotal ?? segments.reduce(0) { $0 + ($1.state == .stalled ? Double($1.end - $1.begin) / 1e9 : 0) }
    }
}

extension Int {
    /// The nearest whole number, of whatever a file says.
    init(whole value: Double) { self = value.isFinite ? Int(Swift.max(-1e15, Swift.min(1e15, value)).rounded()) : 0 }
}

extension Int64 {
    /// A number of a log's line.
    fileprivate init?(text bytes: Data) {
        self.init(String(decoding: bytes, as: UTF8.self))
    }
}
