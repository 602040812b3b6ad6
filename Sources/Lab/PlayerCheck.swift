import Foundation
public import PipelineCore
public import Playout

/// What a real player did, beside what the model says of the same bytes with that player's thresholds.
///
/// The player's own log is `player.jsonl`; the model is given what `buffer.csv` says could be played at each moment, and
/// play pressed when the player was told to.
public struct PlayerCheck: Sendable {
    /// A stretch without playing, in nanoseconds of the run.
    public struct Wait: Hashable, Sendable {
        public var begin: Int64
        public var end: Int64
        public init(begin: Int64, end: Int64) { (self.begin, self.end) = (begin, end) }
    }

    /// One of them: what it did.
    public struct Course: Sendable {
        /// When the first frame was shown.
        public var started: Int64?
        public var stalls: [Wait] = []
        public var ended: Int64?
    }

    public let preset: PlayerPreset
    public private(set) var pressed: Int64 = 0
    public private(set) var player = Course()
    public private(set) var model = Course()
    /// What the viewer did that no model knows of: paused, or sought; `nil`: nothing.
    public private(set) var disturbance: String?
    /// How far the player's clock may be off.
    public private(set) var clockError: Int64 = 0

    /// Why there is nothing to compare.
    public struct Unreadable: Error, Sendable, CustomStringConvertible { public var description: String }

    public static func isFor(_ folder: String) -> Bool {
        FileManager.default.fileExists(atPath: folder + "/player.jsonl")
    }

    /// - Parameter map: The movie's; without it what the log says of each number of bytes is taken, which is coarser.
    public init(folder: String, preset: PlayerPreset, map: MovieMap? = nil) throws(Unreadable) {
        self.preset = preset
        guard let events = FileManager.default.contents(atPath: folder + "/player.jsonl") else {
            throw Unreadable(description: "\(folder): no player has told what it did: player.jsonl is not there")
        }
        guard let levels = FileManager.default.contents(atPath: folder + "/buffer.csv") else {
            throw Unreadable(description: "\(folder): buffer.csv is not there")
        }
        guard let pressed = readPlayer(events) else {
            throw Unreadable(description: "\(folder)/player.jsonl: nobody has pressed play")
        }
        self.pressed = pressed
        let playout = RunReading.stage("playout", of: RunReading.json(folder + "/summary.json"))
        play(levels, map, mediaLength: map?.duration ?? (playout?["media_ns"] as? NSNumber)?.int64Value)
    }

    /// - Returns: When play was pressed for the first time.
    private mutating func readPlayer(_ data: Data) -> Int64? {
        var pressed: Int64?
        var page: NSNumber?
        var since: Int64?
        var paused: Int64?
        var last: Int64 = 0
        func disturbed(_ what: String, at time: Int64) {
            disturbance = disturbance ?? "\(what) at \(String(format: "%.3f", Double(time) / 1e9)) s"
        }
        for line in data.split(separator: UInt8(ascii: "\n")) {
            // Times come from outside: they lie in the run, and go forward.
            guard let event = (try? JSONSerialization.jsonObject(with: line)) as? [String: Any],
                let time = (event["t_ns"] as? NSNumber)?.int64Value, (last..<1 << 60).contains(time)
            else { continue }
            // Of several pages that which was told to play first.
            if event["type"] as? String == "play", page == nil { page = event["page"] as? NSNumber ?? 0 }
            guard page == nil || page == event["page"] as? NSNumber ?? 0 else { continue }
            last = time
            if let at = paused, event["type"] as? String != "ended" { disturbed("paused", at: at) }
            paused = nil
            clockError = max(clockError, (event["clock_error_ns"] as? NSNumber)?.int64Value ?? 0)
            switch event["type"] as? String {
            case "play" where pressed == nil: pressed = time
            case "playing":
                if player.started == nil { player.started = time }
                if let begin = since { player.stalls.append(Wait(begin: begin, end: time)) }
                since = nil
            // Before the first frame it is the start-up that lasts.
            case "waiting" where player.started != nil: since = since ?? time
            case "ended":
                player.ended = time
                if let begin = since { player.stalls.append(Wait(begin: begin, end: time)) }
                since = nil
            // A pause comes right before the end, too.
            case "pause": paused = time
            case "seeking" where player.started != nil: disturbed("sought", at: time)
            default: break
            }
        }
        return pressed
    }

    private mutating func play(_ levels: Data, _ map: MovieMap?, mediaLength: Int64?) {
        var options = preset.options
        // How much the player asked for is in the log already.
        options.maximumBuffer = nil
        var model = PlayoutModel(options, pressed: Timestamp(nanoseconds: pressed))
        var last = Timestamp(nanoseconds: pressed)
        // The log's own map from bytes to media: a player that reads in blocks has what whole ones hold.
        var steps: [(byteCount: Int64, playable: Int64)] = []
        let block = Int64(preset.blockByteCount)
        for line in levels.split(separator: UInt8(ascii: "\n")).dropFirst() {
            let fields = line.split(separator: UInt8(ascii: ",")).map { Int64(String(decoding: $0, as: UTF8.self)) }
            guard fields.count == 5, let time = fields[0], let prefix = fields[1], let playable = fields[2],
                [time, prefix, playable].allSatisfy({ (0..<1 << 60).contains($0) })
            else { continue }
            if prefix > steps.last?.byteCount ?? 0 { steps.append((prefix, playable)) }
            let isWhole = map.map { UInt64(prefix) >= $0.byteCount } ?? mediaLength.map { playable >= $0 } ?? false
            let blocks = prefix / block * block
            let behind = steps.partitioningIndex { $0.byteCount > blocks }
            last = max(last, Timestamp(nanoseconds: time))
            model.advance(
                to: last,
                playable: isWhole
                    ? playable : map?.playable(prefix: UInt64(blocks)) ?? (behind > 0 ? steps[behind - 1].playable : 0),
                isComplete: isWhole
            )
        }
        _ = model.playOut(from: last)
        var since: Int64?
        for change in model.transitions {
            let time = change.time.nanoseconds
            switch change.kind {
            case .started: self.model.started = time
            case .stalled: since = time
            case .resumed, .ended:
                if let begin = since { self.model.stalls.append(Wait(begin: begin, end: time)) }
                since = nil
                if change.kind == .ended { self.model.ended = time }
            }
        }
    }

    // MARK: Comparison

    /// Nanoseconds by which the farthest of all beginnings and ends of stalls differ; `nil` if their numbers do.
    public var worst: Int64? {
        guard disturbance == nil, player.stalls.count == model.stalls.count else { return nil }
        return zip(player.stalls, model.stalls).reduce(0) {
            max($0, abs($1.0.begin - $1.1.begin), abs($1.0.end - $1.1.end))
        }
    }

    /// For people.
    public var text: String {
        func seconds(_ value: Int64?) -> String { value.map { String(format: "%.3f", Double($0) / 1e9) } ?? "-" }
        func total(_ course: Course) -> Int64 { course.stalls.reduce(0) { $0 + $1.end - $1.begin } }
        var lines = [
            "player: \(player.stalls.count) stalls of \(seconds(total(player))) s; model (\(preset.rawValue)): \(model.stalls.count) of \(seconds(total(model))) s; "
                + (worst.map { "they differ by \(seconds($0)) s at most" } ?? disturbance.map {
                    "not comparable: the viewer \($0)"
                } ?? "they do not agree")
        ]
        var table = TextTable(header: ["", "player s", "model s", "difference"])
        func row(_ name: String, _ one: Int64?, _ other: Int64?) {
            guard one != nil || other != nil else { return }
            let difference = one.flatMap { one in other.map { one - $0 } }
            table.append([name, seconds(one), seconds(other), seconds(difference)])
        }
        row("play pressed", pressed, pressed)
        row("first frame", player.started, model.started)
        for index in 0..<max(player.stalls.count, model.stalls.count) {
            let one = index < player.stalls.count ? player.stalls[index] : nil
            let other = index < model.stalls.count ? model.stalls[index] : nil
            row("stall \(index + 1) begins", one?.begin, other?.begin)
            row("stall \(index + 1) ends", one?.end, other?.end)
        }
        row("ended", player.ended, model.ended)
        lines.append(table.text)
        return lines.joined(separator: "\n")
    }

    /// For machines; times in nanoseconds of the run.
    public var json: SummaryValue {
        func course(_ course: Course) -> SummaryValue {
            func time(_ value: Int64?) -> SummaryValue { value.map { .integer($0) } ?? .null }
            return .object([
                (key: "started_ns", value: time(course.started)),
                (
                    key: "stalls_ns",
                    value: .list(course.stalls.map { .list([.integer($0.begin), .integer($0.end)]) })
                ), (key: "ended_ns", value: time(course.ended)),
            ])
        }
        return .object([
            (key: "preset", value: .text(preset.rawValue)), (key: "pressed_ns", value: .integer(pressed)),
            (key: "player", value: course(player)), (key: "model", value: course(model)),
            (key: "disturbance", value: disturbance.map { .text($0) } ?? .null),
            (key: "worst_ns", value: worst.map { .integer($0) } ?? .null),
            (key: "clock_error_ns", value: .integer(clockError)),
        ])
    }
}

extension Array {
    /// The first index whose element fulfils a condition that all behind it fulfil.
    fileprivate func partitioningIndex(where isBehind: (Element) -> Bool) -> Int {
        var (low, high) = (0, count)
        while low < high {
            let middle = (low + high) / 2
            if isBehind(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
