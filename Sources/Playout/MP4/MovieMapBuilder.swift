import PipelineCore

/// Finds a movie's index in its bytes, in whatever order they come.
///
/// Walks the top-level boxes from the start, keeps the bodies of `moov` and `moof`, drops media. Pieces that come ahead
/// of the walk are kept, bounded, until it is known what they are.
public struct MovieMapBuilder: Sendable {
    public enum State: Sendable {
        /// The index is not there yet.
        case incomplete
        /// It is; for a fragmented movie it grows with every fragment.
        case known(MovieMap)
        /// Not an MP4, or a broken one.
        case notMP4(MP4Error)
    }

    public private(set) var state = State.incomplete
    /// Grows whenever ``state`` changes.
    public private(set) var version = 0
    /// The next bytes without which the walk cannot go on.
    public private(set) var position: UInt64 = 0
    /// A place far ahead that is needed before what lies between: the index behind the media. `nil` if there is none.
    public private(set) var wantedOffset: UInt64?
    /// What has been read of the index.
    public private(set) var movie: MP4Movie?

    /// The most bytes kept of pieces whose place is not reached.
    public static let keptLimit = 64 << 20
    /// The largest index read.
    public static let indexLimit = 64 << 20

    private let objectByteCount: UInt64
    private var kept: [(offset: UInt64, bytes: [UInt8])] = []
    private var keptByteCount = 0
    /// Which bytes the kept pieces hold.
    private var there = ByteRangeSet()
    private var sawFileType = false

    public init(objectByteCount: UInt64) { self.objectByteCount = objectByteCount }

    /// Takes a piece of the object.
    public mutating func receive(offset: UInt64, bytes: RawSpan) {
        if case .notMP4 = state { return }
        // What lies behind the object's end is not part of it.
        guard offset < objectByteCount else { return }
        let count = Int(min(UInt64(bytes.byteCount), objectByteCount - offset))
        let end = offset + UInt64(count)
        // Behind the walk, or within media that is being skipped.
        guard end > position, position < objectByteCount, !there.contains(max(offset, position)..<end) else { return }
        let skip = position > offset ? Int(position - offset) : 0
        var copy: [UInt8] = []
        copy.reserveCapacity(count - skip)
        for index in skip..<count {
            copy.append(unsafe bytes.unsafeLoad(fromByteOffset: index, as: UInt8.self))
        }
        keep(offset + UInt64(skip), copy)
        walk()
    }

    /// Reads the index of a file through a closure that gives up to so many bytes from an offset.
    ///
    /// - Returns: The movie, and the offset after its `moov`.
    public static func read(
        objectByteCount: UInt64,
        from file: (UInt64, Int) -> [UInt8]
    ) throws(MP4Error) -> (movie: MP4Movie, indexEnd: UInt64)? {
        var builder = MovieMapBuilder(objectByteCount: objectByteCount)
        var indexEnd: UInt64 = 0
        while builder.position < objectByteCount {
            let place = builder.position
            let hadMovie = builder.movie != nil
            let header = file(place, Int(min(16, objectByteCount - place)))
            guard let box = try BoxHeader(header, at: place) else { break }
            let wanted =
                box.type == "moov" || box.type == "moof" || box.type == "ftyp"
                ? box.byteCount ?? (objectByteCount - place) : 16
            let bytes = wanted > 16 ? file(place, Int(min(wanted, UInt64(indexLimit)))) : header
            builder.keep(place, bytes)
            builder.walk()
            builder.forget()
            if case .notMP4(let error) = builder.state { throw error }
            if !hadMovie, builder.movie != nil { indexEnd = builder.position }
            guard builder.position > place else { break }
        }
        return builder.movie.map { ($0, indexEnd) }
    }

    private mutating func keep(_ offset: UInt64, _ bytes: [UInt8]) {
        guard !bytes.isEmpty else { return }
        guard keptByteCount + bytes.count <= Self.keptLimit else {
            return fail(MP4Error(at: position, "more than \(Self.keptLimit >> 20) MiB came before what is needed here"))
        }
        kept.append((offset, bytes))
        keptByteCount += bytes.count
        there.insert(offset..<offset + UInt64(bytes.count))
    }

    private mutating func forget() {
        kept = []
        keptByteCount = 0
        there = ByteRangeSet()
    }

    private mutating func fail(_ error: MP4Error) {
        state = .notMP4(error)
        version += 1
        forget()
        wantedOffset = nil
    }

    /// Bytes from `offset` on that are there without a hole, at most so many.
    private func bytes(from offset: UInt64, count: Int) -> [UInt8] {
        let end = min(there.firstMissing(from: offset), offset + UInt64(count))
        var collected: [UInt8] = []
        collected.reserveCapacity(Int(end - offset))
        var next = offset
        let pieces = kept.filter { $0.offset < end && $0.offset + UInt64($0.bytes.count) > offset }
        for piece in pieces.sorted(by: { $0.offset < $1.offset }) where next < end {
            let pieceEnd = piece.offset + UInt64(piece.bytes.count)
            guard pieceEnd > next else { continue }
            let start = Int(next - piece.offset)
            collected += piece.bytes[start..<start + Int(min(pieceEnd, end) - next)]
            next = min(pieceEnd, end)
        }
        return collected
    }

    private mutating func walk() {
        do throws(MP4Error) {
            while position < objectByteCount, let next = try step() {
                position = next
                kept.removeAll { $0.offset + UInt64($0.bytes.count) <= position }
                there.remove(0..<position)
                keptByteCount = kept.reduce(0) { $0 + $1.bytes.count }
            }
            // With no index yet, the walk waits for a box that lies behind media.
            wantedOffset = movie == nil && sawMedia ? position : nil
        } catch {
            fail(error)
        }
    }

    private var sawMedia = false

    /// Passes one box.
    ///
    /// - Returns: The offset after it; `nil` if bytes of it are missing.
    private mutating func step() throws(MP4Error) -> UInt64? {
        let head = bytes(from: position, count: 16)
        guard let header = try BoxHeader(head, at: position) else {
            if position + 8 > objectByteCount { return objectByteCount }
            return nil
        }
        let byteCount = header.byteCount ?? objectByteCount - position
        guard byteCount >= header.headerByteCount else { return objectByteCount }
        if !sawFileType {
            guard
                ["ftyp", "moov", "mdat", "free", "skip", "wide", "styp", "pnot", "uuid", "sidx"].contains(header.type)
            else {
                throw MP4Error(
                    at: position,
                    "expected a box that an MP4 begins with, such as 'ftyp', found '\(header.type)'"
                )
            }
            sawFileType = true
        }
        // A box that is longer than the file: what there is of it is still of use, if it is media.
        let end = min(position &+ byteCount, objectByteCount)
        guard position &+ byteCount >= position else {
            throw MP4Error(at: position, "box '\(header.type)' is longer than any file")
        }
        switch header.type {
        case "moov", "moof":
            guard byteCount <= objectByteCount - position else {
                throw MP4Error(
                    at: position,
                    "box '\(header.type)' says it has \(byteCount) bytes; the file has \(objectByteCount - position) left"
                )
            }
            guard byteCount <= UInt64(Self.indexLimit) else {
                throw MP4Error(
                    at: position,
                    "box '\(header.type)' has \(byteCount) bytes; at most \(Self.indexLimit) are read"
                )
            }
            guard there.contains(position..<end) else { return nil }
            let whole = bytes(from: position, count: Int(byteCount))
            let content = Array(whole[Int(header.headerByteCount)...])
            let offset = position + header.headerByteCount
            if header.type == "moov" {
                guard movie == nil else { break }
                movie = try MP4Movie(moov: content, at: offset, objectByteCount: objectByteCount)
            } else {
                guard movie != nil else { throw MP4Error(at: position, "a 'moof' before the 'moov' it belongs to") }
                try movie?.addFragment(moof: content, at: offset, boxOffset: position)
            }
            if let movie {
                state = .known(movie.map())
                version += 1
            }
        case "mdat": sawMedia = true
        default: break
        }
        return end
    }
}
