import Foundation
import PipelineCore
import Playout
import Testing

/// Finds a program on the path.
func program(_ name: String) -> String? {
    let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
    return folders.map { "\($0)/\(name)" }.first { FileManager.default.isExecutableFile(atPath: $0) }
}

/// Runs a program to its end and gives what it printed.
@discardableResult
func output(of name: String, _ arguments: [String]) throws -> Data {
    let process = Process()
    process.executableURL = URL(filePath: try #require(program(name)))
    process.arguments = arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let data = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    try #require(process.terminationStatus == 0, "\(name) \(arguments.joined(separator: " "))")
    return data
}

private func read(_ bytes: [UInt8]) throws(MP4Error) -> (movie: MP4Movie, indexEnd: UInt64)? {
    try MovieMapBuilder.read(objectByteCount: UInt64(bytes.count)) { offset, count in
        guard offset < UInt64(bytes.count) else { return [] }
        return Array(bytes[Int(offset)..<min(bytes.count, Int(offset) + count)])
    }
}

/// What ffprobe says of one packet.
private struct Packet: Decodable {
    var stream_index: Int
    var pts: Int64
    var size: String
    var pos: String?
    var flags: String
}

@Suite("MP4 index")
struct MP4Tests {
    static let layouts: [(String, [String])] = [
        ("progressive", ["-movflags", "+faststart"]),
        ("moov at end", []),
        ("fragmented", ["-movflags", "+frag_keyframe+empty_moov+default_base_moof"]),
        ("fragmented, old style", ["-movflags", "+frag_keyframe+empty_moov"]),
        ("first fragment in moov", ["-movflags", "+frag_keyframe"]),
        ("no B frames", ["-bf", "0"]),
        ("no audio", ["-an"]),
        ("two audio tracks", ["-map", "0:v", "-map", "1:a", "-map", "1:a"]),
        ("delayed audio: an empty edit", ["-map", "0:v", "-map", "2:a"]),
        ("dash", ["-movflags", "+dash+global_sidx"]),
    ]

    @Test(
        "equals ffprobe -show_packets",
        .enabled(if: program("ffmpeg") != nil && program("ffprobe") != nil, "needs ffmpeg and ffprobe"),
        arguments: layouts
    )
    func ffprobe(layout: (String, [String])) throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "mp4-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appending(path: "movie.mp4").path
        try output(
            of: "ffmpeg",
            [
                "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=128x96:rate=25:duration=3", "-f", "lavfi", "-i",
                "sine=frequency=440:sample_rate=48000:duration=3", "-itsoffset", "0.5", "-f", "lavfi", "-i",
                "sine=frequency=880:sample_rate=48000:duration=2", "-c:v", "libx264", "-preset", "ultrafast", "-bf",
                "2",
                "-g", "25", "-pix_fmt", "yuv420p", "-c:a", "aac", "-threads", "1",
            ] + (layout.1.contains("-map") ? [] : ["-map", "0:v"] + (layout.1.contains("-an") ? [] : ["-map", "1:a"]))
                + layout.1 + [file]
        )
        let bytes = [UInt8](try Data(contentsOf: URL(filePath: file)))
        let (movie, indexEnd) = try #require(try read(bytes))
        let json = try output(
            of: "ffprobe",
            [
                "-v", "error", "-show_packets", "-show_entries", "packet=stream_index,pts,size,pos,flags", "-of",
                "json", file,
            ]
        )
        struct Answer: Decodable { var packets: [Packet] }
        let packets = try JSONDecoder().decode(Answer.self, from: json).packets

        for (index, track) in movie.tracks.enumerated() {
            let theirs = packets.filter { $0.stream_index == index }
            #expect(track.samples.count == theirs.count)
            let ours = track.samples.sorted { $0.offset < $1.offset }
            let sorted = theirs.sorted { (UInt64($0.pos ?? "") ?? 0) < (UInt64($1.pos ?? "") ?? 0) }
            // Some muxings have their times moved as a whole by ffmpeg, to begin at 0.
            let shift = (ours.first?.pts ?? 0) - (sorted.first?.pts ?? 0)
            #expect(shift == 0 || layout.0.contains("ragment") || layout.0 == "dash")
            let differing = zip(ours, sorted).count { sample, packet in
                sample.pts - shift != packet.pts || String(sample.byteCount) != packet.size
                    || String(sample.offset) != packet.pos || sample.isKey != packet.flags.hasPrefix("K")
            }
            #expect(differing == 0, "\(layout.0), track \(index)")
        }

        // Playable time from its definition, at a few hundred prefixes.
        let map = movie.map(indexEnd: indexEnd)
        for prefix in stride(from: 0, through: bytes.count, by: max(1, bytes.count / 300)) {
            let expected: Int64
            if prefix == bytes.count {
                expected = map.duration
            } else if UInt64(prefix) < indexEnd {
                expected = 0
            } else {
                let ends = movie.tracks.map { track in
                    let left = track.samples.filter { $0.offset + UInt64($0.byteCount) > UInt64(prefix) }
                    let end = track.samples.map { track.nanoseconds($0.pts + Int64($0.duration)) }.max() ?? 0
                    return left.map { track.nanoseconds($0.pts) }.min() ?? (movie.isFragmented ? end : .max)
                }
                expected = max(0, min(map.duration, ends.min() ?? 0))
            }
            #expect(map.playable(prefix: UInt64(prefix)) == expected, "\(layout.0): \(prefix) bytes")
        }

        // The same index, found in pieces that come in any order.
        var generator = SeededGenerator(seed: 5)
        var builder = MovieMapBuilder(objectByteCount: UInt64(bytes.count))
        for start in stride(from: 0, to: bytes.count, by: 4_099).shuffled(using: &generator) {
            let piece = Array(bytes[start..<min(bytes.count, start + 4_099)])
            builder.receive(offset: UInt64(start), bytes: piece.span.bytes)
        }
        guard case .known(let found) = builder.state else {
            Issue.record("the index was not found in pieces: \(builder.state)")
            return
        }
        #expect(found.duration == map.duration)
        #expect(builder.movie?.tracks.map(\.samples) == movie.tracks.map(\.samples))
    }

    @Test("a moov at the end is wanted before what lies between")
    func wanted() throws {
        let bytes = TinyMP4.file(moovFirst: false)
        var builder = MovieMapBuilder(objectByteCount: UInt64(bytes.count))
        let head = Array(bytes[..<100])
        builder.receive(offset: 0, bytes: head.span.bytes)
        let offset = try #require(builder.wantedOffset)
        #expect(Array(bytes[Int(offset) + 4..<Int(offset) + 8]) == Array("moov".utf8))
        let tail = Array(bytes[Int(offset)...])
        builder.receive(offset: offset, bytes: tail.span.bytes)
        guard case .known(let map) = builder.state else {
            Issue.record("no index: \(builder.state)")
            return
        }
        // The index is there, so the first sample can be played as soon as its bytes are.
        #expect(map.playable(prefix: 24 + 8 + 100) == 40_000_000)
        #expect(builder.wantedOffset == nil)
    }

    @Test(
        "every truncation is an index that is not there yet, or a sample that is not: never a trap",
        arguments: [true, false]
    )
    func truncations(moovFirst: Bool) throws {
        let bytes = TinyMP4.file(moovFirst: moovFirst)
        let whole = try #require(try read(bytes))
        #expect(whole.movie.tracks.map(\.samples.count) == [10])
        for count in 0..<bytes.count {
            // As a download: the object's size is known, the bytes stop.
            var builder = MovieMapBuilder(objectByteCount: UInt64(bytes.count))
            let part = Array(bytes[..<count])
            builder.receive(offset: 0, bytes: part.span.bytes)
            if case .notMP4(let error) = builder.state { Issue.record("\(count) bytes: \(error)") }
            // As a file that is cut: complete, or an error with a place.
            do throws(MP4Error) { _ = try read(part) } catch { #expect(error.offset <= UInt64(count)) }
        }
    }

    @Test(
        "20,000 mutations of a progressive and a fragmented file give an index or a clear error",
        arguments: [1, 2, 3, 4]
    )
    func mutations(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let originals = [TinyMP4.file(moovFirst: true), TinyMP4.file(moovFirst: false), TinyMP4.fragmented()]
        var (indexes, errors, incomplete) = (0, 0, 0)
        for round in 0..<5_000 {
            var bytes = originals[round % 3]
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let place = Int.random(in: 0..<bytes.count, using: &generator)
                switch Int.random(in: 0..<5, using: &generator) {
                case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
                case 1: bytes[place] = UInt8.random(in: 0...255, using: &generator)
                case 2: for index in place..<min(place + 4, bytes.count) { bytes[index] = 0xFF }
                case 3: for index in place..<min(place + 4, bytes.count) { bytes[index] = 0 }
                default: bytes.removeLast(Int.random(in: 0...min(20, bytes.count - 1), using: &generator))
                }
                if bytes.isEmpty { break }
            }
            do throws(MP4Error) {
                if let (movie, end) = try read(bytes) {
                    indexes += 1
                    let map = movie.map(indexEnd: end)
                    _ = map.playable(prefix: UInt64(bytes.count / 2))
                } else {
                    incomplete += 1
                }
            } catch {
                errors += 1
                #expect(!error.message.isEmpty)
            }
            var builder = MovieMapBuilder(objectByteCount: UInt64(bytes.count))
            builder.receive(offset: 0, bytes: bytes.span.bytes)
        }
        #expect(indexes > 0 && errors > 0 && incomplete > 0)
    }

    @Test("what is not an MP4 is said to be none, with the place")
    func notMP4() {
        let bytes = Array("RIFF....WAVEfmt and so on, and on".utf8)
        #expect(throws: MP4Error.self) { try read(bytes) }
    }

    static var mediaFolder: URL {
        URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appending(path: "../shared/data/media")
    }

    @Test(
        "real movies have the length that their makers say",
        .enabled(if: FileManager.default.fileExists(atPath: mediaFolder.path), "needs the shared media"),
        arguments: [
            ("bbb_5s_720p_moov-at-end.mp4", 5.31), ("bbb_60s_360p_faststart.mp4", 60.0),
            ("bbb_20s_360p_fragmented.mp4", 20.0),
        ]
    )
    func real(name: String, seconds: Double) throws {
        let bytes = [UInt8](try Data(contentsOf: Self.mediaFolder.appending(path: name)))
        let (movie, end) = try #require(try read(bytes))
        let map = movie.map(indexEnd: end)
        #expect(abs(Double(map.duration) / 1e9 - seconds) < 0.2)
        // Everything is playable at the end, half of it somewhere in the middle.
        #expect(map.playable(prefix: UInt64(bytes.count)) == map.duration)
        let half = map.bytesNeeded(for: map.duration / 2)
        #expect(half > 0 && half <= UInt64(bytes.count))
    }
}

/// Writes MP4s of ten samples of 100 bytes, 40 ms each: just what a reader needs, by hand.
enum TinyMP4 {
    private static func box(_ type: String, _ content: [UInt8]) -> [UInt8] {
        word(8 + content.count) + Array(type.utf8) + content
    }
    private static func word(_ value: Int) -> [UInt8] {
        [
            UInt8(truncatingIfNeeded: value >> 24), UInt8(truncatingIfNeeded: value >> 16),
            UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value),
        ]
    }
    private static let fileType = box("ftyp", Array("isom".utf8) + word(0) + Array("isommp41".utf8))
    private static func zeros(_ count: Int) -> [UInt8] { Array(repeating: 0, count: count) }

    private static func moov(firstSample: Int, fragmented: Bool = false) -> [UInt8] {
        let none = fragmented
        let tables =
            box("stts", word(0) + (none ? word(0) : word(1) + word(10) + word(40)))
            + box("ctts", word(0) + (none ? word(0) : word(1) + word(10) + word(0)))
            + box("stsc", word(0) + (none ? word(0) : word(1) + word(1) + word(5) + word(1)))
            + box("stsz", word(0) + word(0) + (none ? word(0) : word(10) + (0..<10).flatMap { _ in word(100) }))
            + box("stco", word(0) + (none ? word(0) : word(2) + word(firstSample) + word(firstSample + 500)))
            + box("stss", word(0) + (none ? word(0) : word(1) + word(1)))
        let media =
            box("mdhd", word(0) + word(0) + word(0) + word(1_000) + word(400) + word(0))
            + box("hdlr", word(0) + word(0) + Array("vide".utf8) + zeros(13))
            + box("minf", box("stbl", tables))
        let edit = box("edts", box("elst", word(0) + word(1) + word(400) + word(0) + word(0x1_0000)))
        let track = box(
            "trak",
            box("tkhd", word(0) + word(0) + word(0) + word(1) + zeros(68)) + edit + box("mdia", media)
        )
        let extends = box("mvex", box("trex", word(0) + word(1) + word(1) + word(40) + word(100) + word(0)))
        return box(
            "moov",
            box("mvhd", word(0) + word(0) + word(0) + word(1_000) + word(400) + zeros(80)) + track
                + (fragmented ? extends : [])
        )
    }

    static func file(moovFirst: Bool) -> [UInt8] {
        let data = box("mdat", Array(repeating: 0xAB, count: 1_000))
        if moovFirst {
            let size = moov(firstSample: 0).count
            return fileType + moov(firstSample: fileType.count + size + 8) + data
        }
        return fileType + data + moov(firstSample: fileType.count + 8)
    }

    static func fragmented() -> [UInt8] {
        var bytes = fileType + moov(firstSample: 0, fragmented: true)
        for part in 0..<2 {
            func moof(_ offset: Int) -> [UInt8] {
                let run = box("trun", word(0x201) + word(5) + word(offset) + (0..<5).flatMap { _ in word(100) })
                return box(
                    "moof",
                    box("mfhd", word(0) + word(part))
                        + box(
                            "traf",
                            box("tfhd", word(0x20000) + word(1)) + box("tfdt", word(0) + word(part * 200)) + run
                        )
                )
            }
            bytes += moof(moof(0).count + 8) + box("mdat", Array(repeating: 0xCD, count: 500))
        }
        return bytes
    }
}
