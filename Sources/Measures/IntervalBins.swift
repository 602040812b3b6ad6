/// Events in time, counted in intervals of equal length: the columns of the 2013 parsers.
///
/// Interval k is `[k·length, (k+1)·length)`, so an event at a boundary belongs to the later one. Times before 0 are
/// counted in the first.
public struct IntervalBins: Sendable {
    /// One row.
    public struct Row: Hashable, Sendable {
        /// The interval's beginning, in nanoseconds.
        public var begin: Int64
        /// Events in the interval, by column.
        public var counts: [UInt64]
        /// Bytes from the start of the log to the end of the interval, by column.
        public var accumulatedBytes: [UInt64]
    }

    /// Length of an interval, in nanoseconds.
    public let length: Int64
    private let columnCount: Int
    private var bins: [Int64: (counts: [UInt64], bytes: [UInt64])] = [:]
    /// How many rows there are: up to that of the last event.
    public private(set) var rowCount: Int64 = 0

    /// The most rows that are made; a log that spans more is told to use longer intervals.
    public static let rowLimit: Int64 = 10_000_000

    /// - Precondition: `length` is positive.
    public init(length: Int64, columns: Int) {
        precondition(length > 0, "an interval has a length")
        self.length = length
        columnCount = columns
    }

    /// Counts an event.
    ///
    /// - Returns: `false` if it lies further than ``rowLimit`` intervals.
    public mutating func add(at time: Int64, bytes: UInt64, column: Int) -> Bool {
        let index = max(0, time) / length
        guard index < Self.rowLimit else { return false }
        var bin = bins[index] ?? (Array(repeating: 0, count: columnCount), Array(repeating: 0, count: columnCount))
        bin.counts[column] += 1
        bin.bytes[column] = bin.bytes[column].addingReportingOverflow(bytes).partialValue
        bins[index] = bin
        rowCount = max(rowCount, index + 1)
        return true
    }

    /// Every interval from 0 to that of the last event.
    public var rows: [Row] { rows(from: 0) }

    /// Those from one on.
    public func rows(from first: Int64) -> [Row] {
        var sums = [UInt64](repeating: 0, count: columnCount)
        if first > 0 {
            for (index, bin) in bins where index < first {
                for column in sums.indices { sums[column] = sums[column] &+ bin.bytes[column] }
            }
        }
        return (first..<max(first, rowCount)).map { index in
            let bin = bins[index]
            if let bin { for column in sums.indices { sums[column] = sums[column] &+ bin.bytes[column] } }
            return Row(
                begin: index * length,
                counts: bin?.counts ?? Array(repeating: 0, count: columnCount),
                accumulatedBytes: sums
            )
        }
    }
}
