import Foundation
import Lab
import Measures
import PipelineCore

/// The numbers that the page draws, computed here: the page's script only draws them.
///
/// Times are integers of 0.1 ms, as differences: a chunk costs some 15 bytes of the file.
struct ReportData {
    /// Widths of intervals that the page offers, in nanoseconds.
    static let binWidths: [Int64] = [100_000_000, 500_000_000, 1_000_000_000, 5_000_000_000]
    static let mostBins: Int64 = 4_000
    private static let mostPoints = 6_000
    /// Nanoseconds of a unit of the page's times.
    static let unit: Int64 = 100_000

    let stories: [RunStory]
    /// Every arm's repeats, to be paired with the first arm's.
    let groups: [Comparison.Group]

    /// - Parameters:
    ///   - movie: What a player is to load; `nil`: nothing is played.
    ///   - feed: Where the page hears what has come since; `nil`: nothing more comes.
    ///   - presence: What the page keeps open while it is looked at.
    func json(movie: String?, feed: String? = nil, presence: String? = nil) -> String {
        let end = stories.map(\.end).max() ?? 0
        let fields: [(key: String, value: SummaryValue)] = [
            (key: "unit", value: .integer(Self.unit)), (key: "end", value: .integer(end / Self.unit)),
            (key: "movie", value: movie.map { .text($0) } ?? .null), (key: "arms", value: .list(stories.map(arm))),
            (key: "pairs", value: .list(pairs)), (key: "feed", value: feed.map { .text($0) } ?? .null),
            (key: "presence", value: presence.map { .text($0) } ?? .null),
        ]
        return SummaryValue.object(fields).json
    }

    /// Seconds that each repeat of an arm stalled more than the same repeat of the first arm over the same transport, with the
    /// median; of arms with two repeats or more.
    private var pairs: [SummaryValue] {
        groups.compactMap { group -> SummaryValue? in
            guard let first = groups.first(where: { $0.transport == group.transport }), first.arm != group.arm else {
                return nil
            }
            let base = Dictionary(
                first.runs.map { ($0.repetition, $0.stallTotal) },
                uniquingKeysWith: { one, _ in one }
            )
            let differences = group.runs.compactMap { run -> Double? in
                guard let own = run.stallTotal, let other = base[run.repetition] ?? nil else { return nil }
                return own - other
            }
            guard differences.count > 1, let median = median(differences) else { return nil }
            return .object([
                (
                    key: "title",
                    value: .text(group.transport.isEmpty ? group.arm : "\(group.arm) over \(group.transport)")
                ),
                (key: "base", value: .text(first.arm)), (key: "values", value: .list(differences.map { .number($0) })),
                (key: "median", value: .number(median)),
            ])
        }
    }

    /// State, beginning, end, media time, cause.
    static func segment(_ segment: RunStory.Segment) -> SummaryValue {
        .list([
            .text(segment.state.rawValue), .integer(segment.begin / unit), .integer(segment.end / unit),
            .integer(segment.media / unit), segment.cause.map { .text($0) } ?? .null,
        ])
    }

    /// One letter a source.
    static func letter(_ place: Int) -> Unicode.Scalar { Unicode.Scalar(UInt8(48 + min(74, place))) }

    private func arm(_ story: RunStory) -> SummaryValue {
        let segments = story.segments.map(Self.segment)
        let rows = story.table.rows.sorted { $0.done < $1.done }
        let places = Dictionary(story.sources.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
        return .object([
            (key: "title", value: .text(story.title)), (key: "sources", value: .list(story.sources.map { .text($0) })),
            (key: "segments", value: .list(segments)), (key: "bytes", value: .integer(story.objectByteCount)),
            (key: "media", value: .integer(story.mediaLength / Self.unit)),
            (key: "chunks", value: chunks(rows, story, places)),
            (key: "bins", value: .list(Self.binWidths.compactMap { bins(story, $0) })),
            (key: "buffer", value: points(Self.thinned(story.buffer.map { ($0.time, $0.level / Self.unit) }))),
            (key: "frontier", value: points(Self.thinned(story.frontier.map { ($0.time, $0.contiguous) }))),
            (key: "played", value: points(Self.thinned(story.played.map { ($0.time, $0.byteCount) }))),
            (key: "delays", value: delays(story)),
        ])
    }

    /// Columns of differences: time, source, offset.
    private func chunks(_ rows: [ChunkRow], _ story: RunStory, _ places: [String: Int]) -> SummaryValue {
        var (times, offsets): ([SummaryValue], [SummaryValue]) = ([], [])
        var sources = ""
        var (time, offset): (Int64, Int64) = (0, 0)
        for row in rows {
            let now = row.done / Self.unit
            let place = Int64(clamping: row.offset ?? 0)
            times.append(.integer(now - time))
            offsets.append(.integer(place &- offset))
            sources.unicodeScalars.append(Self.letter(places[row.source] ?? 0))
            (time, offset) = (now, place)
        }
        return .object([
            (key: "t", value: .list(times)), (key: "s", value: .text(sources)), (key: "o", value: .list(offsets)),
        ])
    }

    /// The columns that `tributary parse` writes: chunks and accumulated bytes of each interval and source.
    private func bins(_ story: RunStory, _ width: Int64) -> SummaryValue? {
        guard story.end / width <= Self.mostBins else { return nil }
        let columns = Columns(story.table, interval: width, sources: story.sources)
        let count = max(1, story.sources.count)
        func column(_ value: (IntervalBins.Row, Int) -> UInt64) -> SummaryValue {
            .list(
                (0..<count).map { source in .list(columns.rows.map { .integer(Int64(clamping: value($0, source))) }) }
            )
        }
        return .object([
            (key: "width", value: .integer(width / Self.unit)), (key: "counts", value: column { $0.counts[$1] }),
            (key: "bytes", value: column { $0.accumulatedBytes[$1] }),
        ])
    }

    private func points(_ points: [(Int64, Int64)]) -> SummaryValue {
        var (times, values): ([SummaryValue], [SummaryValue]) = ([], [])
        var last: (Int64, Int64) = (0, 0)
        for (time, value) in points {
            let now = time / Self.unit
            times.append(.integer(now - last.0))
            values.append(.integer(value &- last.1))
            last = (now, value)
        }
        return .object([(key: "t", value: .list(times)), (key: "v", value: .list(values))])
    }

    /// The least and greatest of each stretch, in order: what a line of so many points shows.
    static func thinned(_ points: [(Int64, Int64)]) -> [(Int64, Int64)] {
        guard points.count > mostPoints else { return points }
        let stride = (points.count * 2 + mostPoints - 1) / mostPoints
        var kept: [(Int64, Int64)] = []
        for begin in Swift.stride(from: 0, to: points.count, by: stride) {
            let part = points[begin..<min(begin + stride, points.count)]
            guard let least = part.indices.min(by: { part[$0].1 < part[$1].1 }),
                let most = part.indices.max(by: { part[$0].1 < part[$1].1 })
            else { continue }
            kept.append(part[min(least, most)])
            if least != most { kept.append(part[max(least, most)]) }
        }
        return kept
    }

    /// Delays between wire and application of a run that was captured: name, and quantiles in nanoseconds.
    private func delays(_ story: RunStory) -> SummaryValue {
        guard let check = story.crosscheck else { return .null }
        let lists = ["datagrams", "chunks"].compactMap { (check[$0] as? [String: Any])?["delays"] as? [[String: Any]] }
            .flatMap { $0 }
        let keys = ["least_ns", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "most_ns"]
        let rows = lists.map { delay in
            SummaryValue.list(
                [.text(delay["name"] as? String ?? "")]
                    + keys.map { .integer((delay[$0] as? NSNumber)?.int64Value ?? 0) }
            )
        }
        return .object([
            (key: "verdict", value: .text(check["verdict"] as? String ?? "")), (key: "rows", value: .list(rows)),
        ])
    }
}
