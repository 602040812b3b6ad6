import Foundation
import Lab
import Playout
import Testing

/// A player's log and a buffer's log, made by hand.
@Suite("Player check")
struct PlayerCheckTests {
    private func check(
        player: [(Double, String, Double)],
        levels: [(Double, Int, Double)],
        preset: PlayerPreset = .mpv
    ) throws -> PlayerCheck {
        let folder = FileManager.default.temporaryDirectory.path + "/tributary-player-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        func nanoseconds(_ seconds: Double) -> Int64 { Int64((seconds * 1e9).rounded()) }
        let lines = player.map { time, type, media in
            #"{"t_ns":\#(nanoseconds(time)),"type":"\#(type)","media_ns":\#(nanoseconds(media)),"buffered_ns":0,"clock_error_ns":7}"#
        }
        let rows = levels.map { "\(nanoseconds($0)),\($1),\(nanoseconds($2)),0,playing" }
        let files = [
            "player.jsonl": lines, "buffer.csv": ["t_ns,contiguous_bytes,playable_ns,played_ns,state"] + rows,
            "summary.json": [#"{"pipelines":{"client":{"stages":{"playout":{"media_ns":4000000000}}}}}"#],
        ]
        for (name, lines) in files {
            try (lines.joined(separator: "\n") + "\n").write(
                toFile: folder + "/" + name,
                atomically: true,
                encoding: .utf8
            )
        }
        return try PlayerCheck(folder: folder, preset: preset)
    }

    /// 2 s of media at 1 s, half a second more at 6 s, all 4 s at 7 s.
    private let levels = [(1.0, 200_000, 2.0), (6.0, 250_000, 2.5), (7.0, 400_000, 4.0)]

    @Test("the model starts when play was pressed, and stalls as its thresholds say")
    func agreement() throws {
        let check = try check(
            player: [
                (0.5, "play", 0), (0.5, "waiting", 0), (1.2, "playing", 0), (3.15, "waiting", 1.95),
                (7.1, "playing", 1.95),
                (9.1, "ended", 4),
            ],
            levels: levels
        )
        // mpv goes on with 1 s ahead: half a second is not enough.
        #expect(check.pressed == 500_000_000)
        #expect(check.model.started == 1_000_000_000)
        #expect(check.model.stalls == [.init(begin: 3_000_000_000, end: 7_000_000_000)])
        #expect(check.model.ended == 9_000_000_000)
        #expect(check.player.started == 1_200_000_000)
        #expect(check.player.stalls == [.init(begin: 3_150_000_000, end: 7_100_000_000)])
        #expect(check.worst == 150_000_000)
        #expect(check.clockError == 7)
        #expect(
            check.text.hasPrefix(
                "player: 1 stalls of 3.950 s; model (mpv): 1 of 4.000 s; they differ by 0.150 s at most"
            )
        )
    }

    @Test("a player that reads whole blocks of 32 KiB has not the rest of one")
    func blocks() throws {
        // 200,000 bytes are 6 blocks and a bit: what 6 blocks hold, the log tells at 196,608.
        let check = try check(
            player: [(0.1, "play", 0), (1.0, "playing", 0), (2.9, "waiting", 1.9), (7.0, "playing", 1.9)],
            levels: [(1.0, 196_608, 1.9), (2.0, 200_000, 2.0), (7.0, 400_000, 4.0)],
            preset: .chromium
        )
        #expect(check.model.stalls == [.init(begin: 2_900_000_000, end: 7_000_000_000)])
        #expect(check.worst == 0)
    }

    @Test("different numbers of stalls have no difference; a player that was never told to play is none")
    func disagreement() throws {
        let calm = try check(player: [(0.5, "play", 0), (1, "playing", 0)], levels: levels)
        #expect(calm.worst == nil)
        #expect(calm.text.contains("they do not agree"))
        let sought = try check(
            player: [
                (0.5, "play", 0), (1, "playing", 0), (2, "seeking", 1), (2, "waiting", 3), (3, "playing", 3),
                (4, "pause", 4), (5, "ended", 4),
            ],
            levels: levels
        )
        #expect(sought.worst == nil)
        #expect(sought.text.contains("not comparable: the viewer sought at 2.000 s"))
        // Times that go back, and such as no run has.
        let wild = try check(
            player: [(0.5, "play", 0), (1, "playing", 0)]
                + (0..<6).flatMap { _ in [(-1.1e9, "waiting", 0.0), (1.1e9, "playing", 0.0), (2e9, "waiting", 0.0)] }
                + [(0.7, "ended", 0)],
            levels: levels
        )
        #expect(wild.player.stalls.isEmpty)
        #expect(wild.text.contains("they do not agree"))
        #expect(throws: PlayerCheck.Unreadable.self) { try check(player: [(1, "playing", 0)], levels: levels) }
    }
}
