import Foundation
import Lab
import Measures
public import PipelineCore

/// A run's folder read while it is written: what has come since the last look, in the form that the page draws.
///
/// It reads the logs and nothing else, so it is in nobody's way and may be in another process than the run. Where it
/// stands is three offsets into the logs: whoever knows them goes on from there, without a gap and without a double.
public struct LiveStory {
    /// Bytes of each log that have been taken, always of whole lines.
    public struct Position: Hashable, Sendable, LosslessStringConvertible {
        public var chunks: UInt64 = 0
        public var levels: UInt64 = 0
        public var events: UInt64 = 0
        public init() {}

        /// `chunks.levels.events`, in decimal.
        public init?(_ text: String) {
            let parts = text.split(separator: ".", omittingEmptySubsequences: false).map { UInt64($0) }
            guard parts.count == 3, let chunks = parts[0], let levels = parts[1], let events = parts[2] else {
                return nil
            }
            (self.chunks, self.levels, self.events) = (chunks, levels, events)
        }
        public var description: String { "\(chunks).\(levels).\(events)" }
    }

    private let folder: String
    private var story: RunStory
    private var chunks: LogTail
    private var levels: LogTail
    private var events: LogTail
    private var header = Data()
    private var bins: [IntervalBins]
    /// How many intervals of each width the page has.
    private var binCounts: [Int64]
    private var rowCount = 0
    private var bytesBySource: [UInt64]
    private var lastDone: Int64 = 0
    private var buffer = ThinnedPoints()
    private var frontier = ThinnedPoints()
    private var played = ThinnedPoints()
    /// How many segments the page has.
    private var segmentCount = 0
    /// Bytes of a log that are taken at once.
    private static let most = 1 << 20

    /// - Returns: `nil` while the run has not begun.
    public init?(folder: String) {
        guard FileManager.default.fileExists(atPath: folder + "/run.json") else { return nil }
        self.folder = folder
        story = RunStory(begun: folder)
        if story.sources.isEmpty { story.sources = ["all"] }
        chunks = LogTail(path: folder + "/chunks.csv")
        levels = LogTail(path: folder + "/buffer.csv")
        events = LogTail(path: folder + "/events.jsonl")
        bins = ReportData.binWidths.map { [count = story.sources.count] in IntervalBins(length: $0, columns: count) }
        binCounts = bins.map { _ in 0 }
        bytesBySource = story.sources.map { _ in 0 }
    }

    public var position: Position {
        var position = Position()
        (position.chunks, position.levels, position.events) = (chunks.offset, levels.offset, events.offset)
        return position
    }

    /// Whether the run has ended.
    public var hasEnded: Bool { FileManager.default.fileExists(atPath: folder + "/summary.json") }

    /// Whether all that has been written has been taken.
    public var isAtEnd: Bool { chunks.isAtEnd && levels.isAtEnd && events.isAtEnd }

    /// Whether nothing whole is left to take for now.
    public var isCaughtUp: Bool { !chunks.hasMore && !levels.hasMore && !events.hasMore }

    /// Takes what comes before a position without making anything of it for the page, which has it.
    ///
    /// - Returns: Whether the logs are that long, and it is the end of a line in each.
    public mutating func skip(to position: Position) -> Bool {
        while self.position != position {
            guard chunks.offset <= position.chunks, levels.offset <= position.levels, events.offset <= position.events,
                take(until: position) != nil
            else { return false }
        }
        for points in [\LiveStory.buffer, \.frontier, \.played] { _ = self[keyPath: points].taken() }
        segmentCount = story.segments.count
        binCounts = bins.map(\.rowCount)
        return true
    }

    /// Takes up to a megabyte of each log.
    ///
    /// - Returns: What the page is to change; `nil` if nothing has come.
    public mutating func advance() -> SummaryValue? {
        guard let rows = take(until: nil) else { return nil }
        var fields: [(key: String, value: SummaryValue)] = [
            (key: "bytes", value: .integer(story.objectByteCount)),
            (key: "end", value: .integer(end / ReportData.unit)),
            (key: "chunks", value: patch(rows)),
            (key: "buffer", value: buffer.taken()), (key: "frontier", value: frontier.taken()),
            (key: "played", value: played.taken()),
            (key: "segments", value: segmentPatch()), (key: "cells", value: .list(cells.map { .text($0) })),
        ]
        if let first = rows.map(\.done).min() {
            fields.append((key: "bins", value: .list(bins.indices.map { binPatch($0, since: first) })))
        }
        return .object(fields)
    }

    private var end: Int64 { max(story.latest, lastDone) }

    /// What it does, in words.
    public var sentence: String {
        let state = story.segments.last?.state ?? .startup
        let count = story.stallCount
        let stalls =
            count == 0
            ? "no stall" : "\(count) stall\(count == 1 ? "" : "s") of \(String(format: "%.1f s", story.stallTotal))"
        let words: [RunStory.Segment.State: String] = [
            .startup: "is starting", .playing: "plays", .stalled: "stalls", .ended: "has ended",
        ]
        return "\(story.title) \(words[state] ?? ""): \(stalls)\(state == .ended ? "" : " so far")"
    }

    // MARK: Taking

    /// - Returns: The new rows of the chunk log, or `nil` if nothing at all has come.
    private mutating func take(until position: Position?) -> [ChunkRow]? {
        let newChunks = chunks.lines(atMost: Self.most, until: position?.chunks)
        let newLevels = levels.lines(atMost: Self.most, until: position?.levels)
        let newEvents = events.lines(atMost: Self.most, until: position?.events)
        guard !newChunks.isEmpty || !newLevels.isEmpty || !newEvents.isEmpty else { return nil }
        for line in newLevels.split(separator: UInt8(ascii: "\n")) { story.takeLevel(line) }
        for line in newEvents.split(separator: UInt8(ascii: "\n")) { story.takeEvent(line) }
        for (time, level) in story.buffer { buffer.add(time, level / ReportData.unit) }
        for (time, contiguous) in story.frontier { frontier.add(time, contiguous) }
        for (time, byteCount) in story.played { played.add(time, byteCount) }
        (story.buffer, story.frontier, story.played) = ([], [], [])
        return rows(of: newChunks)
    }

    private mutating func rows(of data: Data) -> [ChunkRow] {
        guard !data.isEmpty else { return [] }
        let isFirst = header.isEmpty
        if isFirst { header = data.prefix { $0 != UInt8(ascii: "\n") } + [UInt8(ascii: "\n")] }
        let rows = ChunkTable(data: isFirst ? data : header + data, file: chunks.path).rows
        for row in rows {
            let place = place(of: row.source)
            bytesBySource[place] &+= row.byteCount
            lastDone = max(lastDone, row.done)
            for index in bins.indices { _ = bins[index].add(at: row.done, bytes: row.byteCount, column: place) }
        }
        rowCount += rows.count
        return rows
    }

    /// The column of a source; what the configuration does not name is in the last.
    private func place(of source: String) -> Int {
        story.sources.firstIndex(of: source) ?? story.sources.count - 1
    }

    // MARK: What the page is told

    /// Rows in the order of the log.
    private func patch(_ rows: [ChunkRow]) -> SummaryValue {
        var letters = ""
        for row in rows { letters.unicodeScalars.append(ReportData.letter(place(of: row.source))) }
        return .object([
            (key: "from", value: .integer(Int64(rowCount - rows.count))),
            (key: "t", value: .list(rows.map { .integer($0.done / ReportData.unit) })),
            (key: "s", value: .text(letters)),
            (key: "o", value: .list(rows.map { .integer(Int64(clamping: $0.offset ?? 0)) })),
        ])
    }

    /// The intervals from that of a time on, and those that the page has not. A width that has too many is left out.
    private mutating func binPatch(_ index: Int, since time: Int64) -> SummaryValue {
        let bins = bins[index]
        let width = (key: "width", value: SummaryValue.integer(bins.length / ReportData.unit))
        guard bins.rowCount <= ReportData.mostBins else {
            return .object([width, (key: "isTooLong", value: .boolean(true))])
        }
        let from = min(time / bins.length, max(0, binCounts[index] - 1))
        binCounts[index] = bins.rowCount
        let rows = bins.rows(from: from)
        func column(_ value: (IntervalBins.Row, Int) -> UInt64) -> SummaryValue {
            .list(
                story.sources.indices.map { source in
                    .list(rows.map { .integer(Int64(clamping: value($0, source))) })
                }
            )
        }
        return .object([
            width, (key: "from", value: .integer(from)), (key: "counts", value: column { $0.counts[$1] }),
            (key: "bytes", value: column { $0.accumulatedBytes[$1] }),
        ])
    }

    /// Those that the page has not, and the last that it has, which may have grown.
    private mutating func segmentPatch() -> SummaryValue {
        let segments = story.segments
        let from = max(0, segmentCount - 1)
        segmentCount = segments.count
        return .object([
            (key: "from", value: .integer(Int64(from))),
            (key: "list", value: .list(segments[from...].map(ReportData.segment))),
        ])
    }

    /// The columns of the page's table, as far as they are known while the run goes on.
    private var cells: [String] {
        func seconds(_ nanoseconds: Int64) -> String { String(format: "%.3f", Double(nanoseconds) / 1e9) }
        let segments = story.segments
        let startup = segments.first.map { segments.count > 1 ? seconds($0.end) : "-" } ?? "-"
        let total = story.stallTotal
        let bytes = bytesBySource.reduce(0) { $0 + Double($1) }
        let shares = zip(story.sources, bytesBySource).map { name, count in
            "\(name) \(bytes == 0 ? 0 : Int((Double(count) * 100 / bytes).rounded())) %"
        }
        let percent = end > 0 ? String(format: "%.2f", total * 1e11 / Double(end)) : "-"
        return [
            story.arm, story.transport, "1", startup, "\(story.stallCount)", String(format: "%.3f", total), percent,
            lastDone > 0 ? seconds(lastDone) : "-", shares.joined(separator: ", "), "-",
        ]
    }
}

/// The least and the greatest of each 50 ms, in order: what a line shows of as many points as a log has.
///
/// A function of the points alone, however they are taken: a stretch is given out when the next has begun.
private struct ThinnedPoints {
    private static let slot: Int64 = 50_000_000
    private var open: (slot: Int64, least: (time: Int64, value: Int64), most: (time: Int64, value: Int64))?
    private var waiting: [(time: Int64, value: Int64)] = []
    private var takenCount = 0

    mutating func add(_ time: Int64, _ value: Int64) {
        let slot = time / Self.slot
        guard let current = open, current.slot == slot else {
            close()
            open = (slot, (time, value), (time, value))
            return
        }
        if value < current.least.value { open?.least = (time, value) }
        // The last of equal ones: a line goes on from there.
        if value >= current.most.value { open?.most = (time, value) }
    }

    private mutating func close() {
        guard let open else { return }
        let pair = [open.least, open.most].sorted { $0.time < $1.time }
        waiting += pair[0] == pair[1] ? [pair[0]] : pair
    }

    /// The points since the last call, and how many came before them.
    mutating func taken() -> SummaryValue {
        defer {
            takenCount += waiting.count
            waiting = []
        }
        return .object([
            (key: "from", value: .integer(Int64(takenCount))),
            (key: "t", value: .list(waiting.map { .integer($0.time / ReportData.unit) })),
            (key: "v", value: .list(waiting.map { .integer($0.value) })),
        ])
    }
}

/// A file that grows by lines, read from where the last look ended.
private struct LogTail {
    let path: String
    private(set) var offset: UInt64 = 0
    private var handle: FileHandle?

    init(path: String) { self.path = path }

    /// Whole lines that have come, up to an offset if there is one; empty if none have.
    mutating func lines(atMost limit: Int, until end: UInt64?) -> Data {
        if handle == nil { handle = FileHandle(forReadingAtPath: path) }
        hasMore = false
        let count = end.map { $0 < offset ? 0 : Int(clamping: $0 - offset) } ?? limit
        guard let handle, count > 0, (try? handle.seek(toOffset: offset)) != nil,
            let data = try? handle.read(upToCount: min(limit, count)),
            let last = data.lastIndex(of: UInt8(ascii: "\n"))
        else { return Data() }
        let lines = data[data.startIndex...last]
        offset += UInt64(lines.count)
        hasMore = data.count == limit
        return Data(lines)
    }

    /// Whether the last look was cut by its limit.
    private(set) var hasMore = false

    /// Whether nothing is left to take; what has no line end will never be a line.
    var isAtEnd: Bool {
        guard let handle else { return !FileManager.default.fileExists(atPath: path) }
        return ((try? handle.seekToEnd()) ?? 0) == offset
    }
}
