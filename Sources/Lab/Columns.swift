import Foundation
public import Measures
import PipelineCore

/// The columns that the 2013 parsers wrote: chunks per interval and accumulated bytes per interval, for gnuplot.
///
/// The report's plots are made of the same rows.
public struct Columns: Sendable {
    /// What is counted.
    public enum Quantity: Sendable { case chunks, bytes }

    public var sources: [String]
    public var rows: [IntervalBins.Row]
    /// Events that lie too many intervals away.
    public var tooLateCount: Int

    /// - Parameters:
    ///   - interval: Nanoseconds, positive.
    ///   - sources: The columns and their order; by default the log's, by first appearance.
    public init(_ table: ChunkTable, interval: Int64, sources given: [String]? = nil) {
        var sources = given ?? []
        var places: [String: Int] = [:]
        for (index, source) in sources.enumerated() { places[source] = index }
        for row in table.rows where places[row.source] == nil {
            places[row.source] = sources.count
            sources.append(row.source)
        }
        self.sources = sources
        var bins = IntervalBins(length: interval, columns: max(1, sources.count))
        tooLateCount = 0
        for row in table.rows {
            if !bins.add(at: row.done, bytes: row.byteCount, column: places[row.source] ?? 0) { tooLateCount += 1 }
        }
        rows = bins.rows
    }

    /// Lines for gnuplot: a header that begins with `#`, then the interval's beginning in seconds and the numbers.
    public func text(_ quantity: Quantity, perSource: Bool) -> String {
        var header = "# seconds"
        if perSource { header += sources.map { " " + $0.replacing(" ", with: "_") }.joined() }
        header += " total\n"
        return rows.reduce(into: header) { text, row in
            let values = quantity == .chunks ? row.counts : row.accumulatedBytes
            text += Self.seconds(row.begin)
            if perSource { for value in values.prefix(sources.count) { text += " \(value)" } }
            text += " \(values.reduce(0, &+))\n"
        }
    }

    /// Exact seconds without needless zeros.
    static func seconds(_ nanoseconds: Int64) -> String {
        let (whole, rest) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        guard rest != 0 else { return "\(whole)" }
        var digits = String(rest)
        digits = String(repeating: "0", count: 9 - digits.count) + digits
        while digits.last == "0" { digits.removeLast() }
        return "\(whole).\(digits)"
    }

    /// Writes text to a file, whole or not at all; `-` is stdout.
    public static func write(_ text: String, to path: String) throws {
        if path == "-" {
            try FileHandle.standardOutput.write(contentsOf: Data(text.utf8))
        } else {
            try Data(text.utf8).write(to: URL(filePath: path), options: .atomic)
        }
    }
}
