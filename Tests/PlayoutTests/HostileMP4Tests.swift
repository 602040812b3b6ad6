import Playout
import Testing

/// Files made by hand against one check each.
@Suite("Hostile MP4")
struct HostileMP4Tests {
    private func word(_ value: UInt64, _ count: Int = 4) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) }
    }
    private func zeros(_ count: Int) -> [UInt8] { Array(repeating: 0, count: count) }
    private func box(_ type: String, _ content: [UInt8]) -> [UInt8] {
        word(UInt64(8 + content.count)) + Array(type.utf8) + content
    }
    private var fileType: [UInt8] { box("ftyp", Array("isom".utf8) + word(0) + Array("isom".utf8)) }

    /// An index of one video track without samples, with an edit list if there is one.
    private func moov(edits: [UInt8]? = nil) -> [UInt8] {
        let tables =
            box("stts", word(0, 8)) + box("stsc", word(0, 8)) + box("stsz", zeros(12)) + box("stco", word(0, 8))
        let media =
            box("mdhd", zeros(12) + word(1_000) + zeros(8)) + box("hdlr", zeros(8) + Array("vide".utf8) + zeros(13))
            + box("minf", box("stbl", tables))
        let track =
            box("tkhd", zeros(12) + word(1) + zeros(68)) + (edits.map { box("edts", box("elst", $0)) } ?? [])
            + box("mdia", media)
        let fragments = box("mvex", box("trex", word(0) + word(1) + word(1) + word(40) + word(10) + word(0)))
        return box("moov", box("mvhd", zeros(12) + word(1_000) + zeros(84)) + box("trak", track) + fragments)
    }

    private func read(_ bytes: [UInt8]) throws(MP4Error) -> MP4Movie? {
        try MovieMapBuilder.read(objectByteCount: UInt64(bytes.count)) { offset, count in
            guard offset < UInt64(bytes.count) else { return [] }
            return Array(bytes[Int(offset)..<min(bytes.count, Int(offset) + count)])
        }?.movie
    }

    @Test("an edit at the least 64-bit time is an error")
    func edit() {
        let edits = word(0x0100_0000) + word(1) + word(5, 8) + word(1 << 63, 8) + word(0x1_0000)
        #expect(throws: MP4Error.self) { try read(fileType + moov(edits: edits)) }
    }

    @Test("bytes behind the object's end are left out")
    func behindTheEnd() {
        let piece = fileType + word(0) + Array("moov".utf8)
        var builder = MovieMapBuilder(objectByteCount: UInt64(fileType.count + 4))
        builder.receive(offset: 0, bytes: piece.span.bytes)
        builder.receive(offset: .max - 3, bytes: piece.span.bytes)
        guard case .incomplete = builder.state else {
            Issue.record("\(builder.state)")
            return
        }
        #expect(builder.position == UInt64(fileType.count + 4))
    }

    @Test("an index that goes to the end of the file is read")
    func sizeZero() throws {
        var index = moov()
        index.replaceSubrange(0..<4, with: word(0))
        #expect(try read(fileType + box("mdat", zeros(100)) + index)?.tracks.count == 1)
    }

    @Test("samples that take no room in a run are bounded by the file", arguments: [1, 99] as [UInt64])
    func samplesOfNothing(track: UInt64) {
        let run = box("trun", word(0) + word(4_000_000))
        let fragment = box("traf", box("tfhd", word(0x2_0010) + word(track) + word(0)) + (0..<100).flatMap { _ in run })
        #expect(throws: MP4Error.self) { try read(fileType + moov() + box("moof", fragment)) }
    }
}
