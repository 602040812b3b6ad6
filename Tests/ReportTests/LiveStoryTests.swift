import Foundation
import PipelineCore
import Report
import Testing

/// What a page has that does what it is told.
private struct Page: Equatable {
    var t: [Int64] = []
    var o: [Int64] = []
    var s = ""
    var lines: [String: [[Int64]]] = ["buffer": [[], []], "frontier": [[], []], "played": [[], []]]
    var segments: [String] = []
    var counts: [Int64: [[Int64]]] = [:]
    var bytes: [Int64: [[Int64]]] = [:]

    mutating func take(_ patch: SummaryValue) throws {
        func numbers(_ value: SummaryValue?) -> [Int64] { (value?.items ?? []).compactMap(\.integer) }
        let chunks = try #require(patch["chunks"])
        let from = Int(try #require(chunks["from"]?.integer))
        #expect(from <= t.count, "a gap")
        t = t.prefix(from) + numbers(chunks["t"])
        o = o.prefix(from) + numbers(chunks["o"])
        s = s.prefix(from) + (chunks["s"]?.text ?? "")
        for name in lines.keys.sorted() {
            let list = try #require(patch[name])
            let from = Int(try #require(list["from"]?.integer))
            let old = lines[name] ?? []
            #expect(from <= old[0].count, "a gap in \(name)")
            lines[name] = [old[0].prefix(from) + numbers(list["t"]), old[1].prefix(from) + numbers(list["v"])]
        }
        let first = Int(try #require(patch["segments"]?["from"]?.integer))
        segments = segments.prefix(first) + (patch["segments"]?["list"]?.items ?? []).map(\.json)
        for bins in patch["bins"]?.items ?? [] {
            let width = try #require(bins["width"]?.integer)
            if bins["isTooLong"] != nil {
                (counts[width], bytes[width]) = (nil, nil)
                continue
            }
            let from = Int(try #require(bins["from"]?.integer))
            for (key, place) in [("counts", \Page.counts), ("bytes", \Page.bytes)] {
                let new = (bins[key]?.items ?? []).map(numbers)
                let old = self[keyPath: place][width] ?? new.map { _ in [] }
                self[keyPath: place][width] = zip(old, new).map { $0.prefix(from) + $1 }
            }
        }
    }
}

@Suite("Live story")
struct LiveStoryTests {
    /// A run of 40 s from two sources with three stalls, as its logs would have it.
    private static let logs: [String: Data] = {
        var generator = SeededGenerator(seed: 7)
        var chunks = "seq,t_ns,source,offset,length,requested_ns,first_byte_ns,done_ns,dup\n"
        var levels = "t_ns,contiguous_bytes,playable_ns,played_ns,state\n"
        var events = #"{"t_ns":5,"type":"object","pipeline":"client","bytes":52428800}"# + "\n"
        var (time, played): (Int64, Int64) = (0, 0)
        for index in 0..<800 {
            time += Int64.random(in: 1_000_000...100_000_000, using: &generator)
            // Nothing for a while: intervals without a chunk.
            if index == 300 || index == 600 { time += 5_000_000_000 }
            chunks +=
                "\(index),\(time),\(index % 3 == 0 ? "b" : "a"),\(index * 65_536),65536,\(time - 900_000),\(time - 500_000),\(time),0\n"
            let playable = Int64(index) * 50_000_000
            played = min(playable, played + Int64.random(in: 0...90_000_000, using: &generator))
            levels += "\(time),\((index + 1) * 65_536),\(playable),\(played),playing\n"
            let type: String? = [
                20: "playback_start", 200: "stall_begin", 240: "stall_end", 500: "stall_begin", 530: "stall_end",
                790: "playback_end",
            ][index]
            if let type {
                events += #"{"t_ns":\#(time),"type":"\#(type)","pipeline":"client","media_ns":\#(played)}"# + "\n"
            }
        }
        return ["chunks.csv": Data(chunks.utf8), "buffer.csv": Data(levels.utf8), "events.jsonl": Data(events.utf8)]
    }()

    private final class Folder {
        let path = FileManager.default.temporaryDirectory.path + "/tributary-live-\(UUID().uuidString)"
        init() throws {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            try write("run.json", Data(#"{"arm":"dual","sources":[{"name":"a"},{"name":"b"}]}"#.utf8))
        }
        deinit { try? FileManager.default.removeItem(atPath: path) }
        func write(_ name: String, _ data: Data) throws { try data.write(to: URL(filePath: path + "/" + name)) }
    }

    /// All at once.
    private func whole() throws -> Page {
        let folder = try Folder()
        for (name, data) in Self.logs { try folder.write(name, data) }
        var story = try #require(LiveStory(folder: folder.path))
        var page = Page()
        while let patch = story.advance() { try page.take(patch) }
        return page
    }

    @Test("a page that saw the logs grow has what one has that came late, wherever lines were cut", arguments: 1...5)
    func growth(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let folder = try Folder()
        var story = try #require(LiveStory(folder: folder.path))
        var page = Page()
        var counts = ["chunks.csv": 0, "buffer.csv": 0, "events.jsonl": 0]
        while counts.contains(where: { $0.value < Self.logs[$0.key]?.count ?? 0 }) {
            for (name, data) in Self.logs.sorted(by: { $0.key < $1.key }) {
                let count = min(data.count, (counts[name] ?? 0) + Int.random(in: 0...3_000, using: &generator))
                counts[name] = count
                try folder.write(name, data.prefix(count))
            }
            if let patch = story.advance() { try page.take(patch) }
        }
        let late = try whole()
        #expect(late.t.count == 800)
        #expect(late.segments.count == 7)
        #expect(late.counts[10_000]?.reduce(0) { $0 + $1.reduce(0, +) } == 800)
        #expect(late.bytes[10_000]?.map { $0.last ?? 0 } == [533 * 65_536, 267 * 65_536])
        for (width, counts) in late.counts {
            #expect(counts.allSatisfy { Int64($0.count) == (late.t.last ?? 0) / width + 1 })
        }
        // Lines are merged alike; what a segment was while it was open is gone.
        #expect(page == late)
    }

    @Test("a server begun anew goes on where the page is: no gap, no double", arguments: 1...5)
    func resumption(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let folder = try Folder()
        var page = Page()
        var position = LiveStory.Position()
        var counts = ["chunks.csv": 0, "buffer.csv": 0, "events.jsonl": 0]
        while counts.contains(where: { $0.value < Self.logs[$0.key]?.count ?? 0 }) {
            for (name, data) in Self.logs.sorted(by: { $0.key < $1.key }) {
                let count = min(data.count, (counts[name] ?? 0) + Int.random(in: 0...20_000, using: &generator))
                counts[name] = count
                try folder.write(name, data.prefix(count))
            }
            // Each time another one, which knows the last id and nothing else.
            var story = try #require(LiveStory(folder: folder.path))
            let known = try #require(LiveStory.Position("\(position)"))
            let isThere = story.skip(to: known)
            #expect(isThere)
            #expect(story.position == position)
            if let patch = story.advance() {
                let before = page.t.count
                try page.take(patch)
                #expect(patch["chunks"]?["from"]?.integer == Int64(before), "nothing is told twice")
            }
            position = story.position
        }
        #expect(page == (try whole()))
    }

    @Test("a position that is none of these logs is refused", arguments: ["1.0.0", "0.0.99999999", "3.4.5"])
    func wrongPosition(text: String) throws {
        let folder = try Folder()
        for (name, data) in Self.logs { try folder.write(name, data) }
        var story = try #require(LiveStory(folder: folder.path))
        let isThere = story.skip(to: try #require(LiveStory.Position(text)))
        #expect(!isThere)
    }

    @Test("numbers that no run has do no harm")
    func hostile() throws {
        let folder = try Folder()
        var text = "seq,t_ns,source,offset,length,requested_ns,first_byte_ns,done_ns,dup\n0,1,a,0,100,1,1,1,0\n"
        try folder.write("chunks.csv", Data(text.utf8))
        var story = try #require(LiveStory(folder: folder.path))
        var page = Page()
        let first = story.advance()
        try page.take(try #require(first))
        for done in ["2000000000000000", "9223372036854775807", "5"] {
            text += "1,1,b,18446744073709551615,18446744073709551615,0,0,\(done),18446744073709551615\n"
            try folder.write("chunks.csv", Data(text.utf8))
            let next = story.advance()
            let patch = try #require(next)
            try page.take(patch)
            // What lies in a million intervals is left out instead of made.
            #expect(patch.json.utf8.count < 100_000)
        }
        #expect(page.t.count == 4)
        try folder.write(
            "buffer.csv",
            Data(
                "h\n9223372036854775807,1,2,3,x\n-1,1,1,1,x\n1,9223372036854775807,-9223372036854775808,9223372036854775807,x\n"
                    .utf8
            )
        )
        try folder.write("events.jsonl", Data(#"{"t_ns":1e300,"type":"stall_begin","media_ns":-1e300}"#.utf8 + [10]))
        _ = story.advance()
        #expect(story.sentence.contains("no stall so far"))
    }

    @Test("what is no position is none", arguments: ["", "1", "1.2", "1.2.3.4", "a.b.c", "-1.0.0", "1..2"])
    func noPosition(text: String) { #expect(LiveStory.Position(text) == nil) }
}
