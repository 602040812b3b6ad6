public import Foundation

/// One line of a chunk log, times in nanoseconds since the run began.
public struct ChunkRow: Hashable, Sendable {
    /// The chunk's index; `nil` in a plain log.
    public var chunk: UInt64?
    public var source: String
    /// Where it begins in the object; `nil` in a plain log.
    public var offset: UInt64?
    public var byteCount: UInt64
    public var requested: Int64?
    public var firstByte: Int64?
    /// When it was there whole.
    public var done: Int64
    /// Its bytes that had come before.
    public var duplicateByteCount: UInt64
}

/// A line that could not be read.
public struct BadLine: Hashable, Sendable, CustomStringConvertible {
    public var file: String
    /// From 1.
    public var line: Int
    public var message: String
    public var description: String { "\(file):\(line): error: \(message)" }
}

/// The chunks of a log, from `chunks.csv` or from a plain log of `timestamp size` lines as the 2013 programs wrote.
public struct ChunkTable: Sendable {
    public private(set) var rows: [ChunkRow] = []
    /// Lines that were skipped, with why.
    public private(set) var badLines: [BadLine] = []
    /// Whether the last line was cut in its middle: the run was killed as it wrote.
    public private(set) var isCut = false

    /// Why a log cannot be read at all.
    public struct Unreadable: Error, Sendable, CustomStringConvertible {
        public var description: String
    }

    /// Reads a run's folder, a `chunks.csv` or a plain log.
    public init(path: String) throws(Unreadable) {
        var isFolder: ObjCBool = false
        guard unsafe FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
            throw Unreadable(description: "\(path): there is no such file or folder")
        }
        let file = isFolder.boolValue ? path + "/chunks.csv" : path
        guard let data = FileManager.default.contents(atPath: file) else {
            throw Unreadable(description: "\(file): cannot be read")
        }
        self.init(data: data, file: file)
    }

    /// Reads a log from memory.
    public init(data: Data, file: String) {
        let text = String(decoding: data, as: UTF8.self)
        var lines = text.split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }
        if lines.last?.isEmpty == true { lines.removeLast() } else { isCut = !lines.isEmpty }
        guard let first = lines.first else { return }
        let names = Self.fields(of: first) ?? []
        if names.first == "seq" {
            readCSV(lines, names, file)
        } else {
            // A plain log need not end in a line end.
            isCut = false
            readPlain(lines, file)
        }
    }

    // MARK: chunks.csv

    private mutating func readCSV(_ lines: [Substring], _ names: [String], _ file: String) {
        let columns = ["seq", "source", "length", "requested_ns", "first_byte_ns", "done_ns", "dup", "offset"]
        let places = columns.map { names.firstIndex(of: $0) }
        if let missing = zip(columns, places).first(where: { $0.1 == nil }) {
            badLines.append(BadLine(file: file, line: 1, message: "the header has no column '\(missing.0)'"))
            return
        }
        for (index, line) in lines.enumerated().dropFirst() {
            if isCut, index == lines.count - 1 { break }
            guard !line.isEmpty else { continue }
            guard let fields = Self.fields(of: line), fields.count == names.count else {
                bad(file, index, "expected \(names.count) fields, found '\(shortened(line))'")
                continue
            }
            func field(_ column: Int) -> String { fields[places[column] ?? 0] }
            func time(_ column: Int) -> Int64? { Int64(field(column)) }
            guard let chunk = UInt64(field(0)), let byteCount = UInt64(field(2)), let requested = time(3),
                let firstByte = time(4), let done = time(5), done >= 0, let duplicates = UInt64(field(6)),
                let offset = UInt64(field(7))
            else {
                bad(file, index, "expected whole numbers, found '\(shortened(line))'")
                continue
            }
            rows.append(
                ChunkRow(
                    chunk: chunk,
                    source: field(1),
                    offset: offset,
                    byteCount: byteCount,
                    requested: requested < 0 ? nil : requested,
                    firstByte: firstByte < 0 ? nil : firstByte,
                    done: done,
                    duplicateByteCount: duplicates
                )
            )
        }
    }

    private mutating func bad(_ file: String, _ index: Int, _ message: String) {
        badLines.append(BadLine(file: file, line: index + 1, message: message))
    }

    private func shortened(_ line: Substring) -> String {
        let printable = line.prefix(60).map { ($0.asciiValue ?? 32) < 32 ? "?" : $0 }
        return String(printable) + (line.count > 60 ? "…" : "")
    }

    /// The fields of a CSV line (RFC 4180); `nil` if a quote is not closed.
    static func fields(of line: Substring) -> [String]? {
        var fields: [String] = []
        var field = ""
        var isQuoted = false
        var characters = line.makeIterator()
        var next = characters.next()
        while let character = next {
            next = characters.next()
            switch character {
            case "\"" where isQuoted && next == "\"":
                field.append("\"")
                next = characters.next()
            case "\"" where isQuoted || field.isEmpty: isQuoted.toggle()
            case "," where !isQuoted:
                fields.append(field)
                field = ""
            default: field.append(character)
            }
        }
        return isQuoted ? nil : fields + [field]
    }

    // MARK: Plain logs

    /// `timestamp size`, with spaces, tabs, commas or semicolons between; `#` begins a comment.
    ///
    /// The unit of the timestamps is told by the size of their median: below 10¹¹ they are seconds, below 10¹⁴ milliseconds, below 10¹⁷
    /// microseconds, else nanoseconds. Times since 1970 (above 10⁸ s) become relative to the first.
    private mutating func readPlain(_ lines: [Substring], _ file: String) {
        var events: [(time: Decimal, byteCount: UInt64, index: Int)] = []
        for (index, line) in lines.enumerated() {
            let content = line.prefix { $0 != "#" }
            let fields = content.split { " \t,;\r".contains($0) }
            guard !fields.isEmpty else { continue }
            guard fields.count == 2, fields[0].contains(where: \.isNumber), fields[0].count(where: { $0 == "." }) <= 1,
                fields[0].allSatisfy({ "0123456789.".contains($0) }),
                let time = Decimal(string: String(fields[0])), time.isFinite, let byteCount = UInt64(fields[1])
            else {
                bad(file, index, "expected 'timestamp size', found '\(shortened(line))'")
                continue
            }
            events.append((time, byteCount, index))
        }
        guard !events.isEmpty else { return }
        // One line that is far off must not decide for the others.
        let typical = events.map(\.time).sorted()[events.count / 2]
        let scale: Decimal =
            typical < 100_000_000_000
            ? 1_000_000_000
            : typical < 100_000_000_000_000
                ? 1_000_000
                : typical < Decimal(sign: .plus, exponent: 17, significand: 1) ? 1_000 : 1
        let isEpoch = typical * scale > Decimal(sign: .plus, exponent: 17, significand: 1)
        let origin = isEpoch ? events.map(\.time).min() ?? 0 : 0
        for event in events {
            let nanoseconds = NSDecimalNumber(decimal: (event.time - origin) * scale).doubleValue
            guard nanoseconds < 9e18 else {
                bad(file, event.index, "the time is more than 285 years after the first")
                continue
            }
            rows.append(
                ChunkRow(
                    chunk: nil,
                    source: "all",
                    offset: nil,
                    byteCount: event.byteCount,
                    requested: nil,
                    firstByte: nil,
                    done: Int64(nanoseconds.rounded()),
                    duplicateByteCount: 0
                )
            )
        }
    }
}

extension Decimal {
    fileprivate var isFinite: Bool { !isNaN && !isInfinite }
}
