/// What is wrong with a file that claims to be MP4, and where.
public struct MP4Error: Error, Hashable, Sendable, CustomStringConvertible {
    /// Byte offset in the file.
    public var offset: UInt64
    /// What was found, and what would be right.
    public var message: String
    public init(at offset: UInt64, _ message: String) {
        self.offset = offset
        self.message = message
    }
    public var description: String { "byte \(offset): \(message)" }
}

/// The header of a box (ISO/IEC 14496-12, 4.2).
struct BoxHeader {
    var type: FourCC
    /// Bytes of the header itself: 8, or 16 with a 64-bit size.
    var headerByteCount: UInt64
    /// Bytes of the whole box; `nil` if it goes to the end of the file.
    var byteCount: UInt64?

    /// Reads a header from the first 16 bytes of a box, of which the last 8 may be missing.
    ///
    /// - Returns: `nil` if more bytes are needed.
    init?(_ bytes: some RandomAccessCollection<UInt8>, at offset: UInt64) throws(MP4Error) {
        guard bytes.count >= 8 else { return nil }
        let head = Array(bytes.prefix(16))
        let short = head[0..<4].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        type = FourCC(head[4..<8].reduce(UInt32(0)) { $0 << 8 | UInt32($1) })
        switch short {
        case 0:
            headerByteCount = 8
            byteCount = nil
        case 1:
            guard head.count >= 16 else { return nil }
            headerByteCount = 16
            let long = head[8..<16].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            guard long >= 16 else {
                throw MP4Error(at: offset, "box '\(type)' says it has \(long) bytes; its header alone has 16")
            }
            byteCount = long
        case 2..<8:
            throw MP4Error(at: offset, "box '\(type)' says it has \(short) bytes; its header alone has 8")
        default:
            headerByteCount = 8
            byteCount = short
        }
    }
}

/// A box type: four characters.
struct FourCC: Hashable, ExpressibleByStringLiteral, CustomStringConvertible {
    let code: UInt32
    init(_ code: UInt32) { self.code = code }
    init(stringLiteral text: String) { code = text.utf8.reduce(0) { $0 << 8 | UInt32($1) } }
    var description: String {
        (0..<4).map { shift in
            let byte = UInt8(truncatingIfNeeded: code >> UInt32(24 - 8 * shift))
            return (32..<127).contains(byte) ? String(Unicode.Scalar(byte)) : "?"
        }.joined()
    }
}

/// The content of a box that is wholly in memory; every read is checked against its end.
struct BoxReader {
    private let bytes: [UInt8]
    /// Where in the file `bytes` begin.
    private let base: UInt64
    private(set) var position: Int
    let end: Int

    init(_ bytes: [UInt8], at base: UInt64) {
        self.bytes = bytes
        self.base = base
        position = 0
        end = bytes.count
    }

    private init(_ bytes: [UInt8], at base: UInt64, _ range: Range<Int>) {
        self.bytes = bytes
        self.base = base
        position = range.lowerBound
        end = range.upperBound
    }

    /// Where in the file the next byte is.
    var offset: UInt64 { base + UInt64(position) }
    var remaining: Int { end - position }

    mutating func skip(_ count: Int) throws(MP4Error) {
        guard count >= 0, count <= remaining else {
            throw MP4Error(at: offset, "the box ends \(count - remaining) bytes too early")
        }
        position += count
    }

    mutating func integer(_ count: Int) throws(MP4Error) -> UInt64 {
        let start = position
        try skip(count)
        var value: UInt64 = 0
        for index in start..<position { value = value << 8 | UInt64(bytes[index]) }
        return value
    }

    mutating func uint8() throws(MP4Error) -> UInt8 { UInt8(try integer(1)) }
    mutating func uint16() throws(MP4Error) -> UInt16 { UInt16(try integer(2)) }
    mutating func uint32() throws(MP4Error) -> UInt32 { UInt32(try integer(4)) }
    mutating func uint64() throws(MP4Error) -> UInt64 { try integer(8) }
    mutating func int32() throws(MP4Error) -> Int32 { Int32(bitPattern: try uint32()) }

    /// Version and flags of a full box.
    mutating func versionAndFlags() throws(MP4Error) -> (version: UInt8, flags: UInt32) {
        let word = try uint32()
        return (UInt8(word >> 24), word & 0xFF_FFFF)
    }

    /// A count of entries that must fit into what is left of the box.
    mutating func entryCount(of entryByteCount: Int, in box: FourCC) throws(MP4Error) -> Int {
        let place = offset
        let count = Int(try uint32())
        guard count <= remaining / entryByteCount else {
            throw MP4Error(
                at: place,
                "'\(box)' says it has \(count) entries; there is room for \(remaining / entryByteCount)"
            )
        }
        return count
    }

    /// The next box within this one; `nil` at the end.
    mutating func nextBox() throws(MP4Error) -> (type: FourCC, content: BoxReader)? {
        // Up to seven stray bytes at the end of a box are padding.
        guard remaining >= 8 else { return nil }
        let start = offset
        guard let header = try BoxHeader(bytes[position..<min(end, position + 16)], at: start) else {
            throw MP4Error(at: start, "the header of a box is cut")
        }
        let byteCount = header.byteCount ?? UInt64(remaining)
        guard byteCount <= UInt64(remaining) else {
            throw MP4Error(
                at: start,
                "box '\(header.type)' says it has \(byteCount) bytes; the box around it has \(remaining) left"
            )
        }
        let content = position + Int(header.headerByteCount)..<position + Int(byteCount)
        position += Int(byteCount)
        return (header.type, BoxReader(bytes, at: base, content))
    }
}
