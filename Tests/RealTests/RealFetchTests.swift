import Foundation
import Lab
import PipelineCore
import Testing

/// Whether this machine has an IPv6 loopback.
let hasIPv6: Bool = FileManager.default.fileExists(atPath: "/proc/net/if_inet6")

@Suite("Real fetch", .tags(.real), .serialized)
struct RealFetchTests {
    /// A client of two servers; each URL's scheme says what its server speaks.
    static func configuration(
        _ schemes: [String],
        host: String = "127.0.0.1",
        rate: String? = nil,
        scheduler: String = "{ type: pull }",
        sinks: String = "{ type: file, path: out.bin }"
    ) -> String {
        let names = ["a", "b", "c"]
        var text = "run: { duration: 60s }\npipelines:\n  client:\n    sources:\n"
        for (name, scheme) in zip(names, schemes) {
            text += "      - { name: \(name), url: \"\(scheme)://@\(name)\", object: \"film/movie 1.bin\" }\n"
        }
        text += """
                capture: { type: movie, chunk: 100000B }
                stages: [ \(scheduler), { type: fetch } ]
                sinks: [ { type: playout, bitrate: 8Mbit/s }, { type: chunk_log }, \(sinks) ]

            """
        for (name, scheme) in zip(names, schemes) {
            let pacer = rate.map { "{ type: pacer, rate: \($0) }" } ?? ""
            text += "  \(name):\n    capture: { type: \(scheme)_serve, directory: ., listen: \"\(host):0\" }\n"
            text += "    stages: [ \(pacer) ]\n    sinks: [ { type: reply } ]\n"
        }
        return text
    }

    private func scratch(byteCount: Int = 3_000_001) throws -> (Scratch, [UInt8]) {
        let scratch = try Scratch()
        try FileManager.default.createDirectory(atPath: scratch.path + "/film", withIntermediateDirectories: true)
        return (scratch, try scratch.file("film/movie 1.bin", byteCount: byteCount))
    }

    @Test(
        "a movie from two servers in any mix arrives byte for byte",
        arguments: [["tcp", "tcp"], ["udp", "udp"], ["tcp", "udp"], ["udp", "tcp", "udp"], ["tcp"], ["udp"]]
    )
    func mixes(schemes: [String]) async throws {
        let (scratch, bytes) = try scratch()
        let folder = scratch.path + "/run"
        let result = try await run(Self.configuration(schemes), folder: folder, base: scratch.path)
        #expect(result.errors.isEmpty)
        #expect(scratch.contents("run/out.bin") == bytes)
        #expect(!FileManager.default.fileExists(atPath: folder + "/out.bin.part"))
        #expect(try summary(result, "client", "fetch")["verified"] == .boolean(true))
        let table = try ChunkTable(path: folder)
        #expect(Set(table.rows.compactMap(\.chunk)).count == 31)
        #expect(table.badLines.isEmpty)
        // The shares of the sources make the whole.
        let playout = try summary(result, "client", "playout")
        let shares = playout["sources"]?.items.compactMap { $0["bytes"]?.integer } ?? []
        #expect(shares.reduce(0, +) == Int64(bytes.count))
    }

    @Test("over IPv6 as well", .enabled(if: hasIPv6, "needs ::1"), arguments: ["tcp", "udp"])
    func ipv6(scheme: String) async throws {
        let (scratch, bytes) = try scratch(byteCount: 300_000)
        let result = try await run(
            Self.configuration([scheme, scheme], host: "[::1]"),
            folder: scratch.path + "/run",
            base: scratch.path
        )
        #expect(result.errors.isEmpty)
        #expect(scratch.contents("run/out.bin") == bytes)
    }

    @Test("an empty movie and one of a single byte arrive, too", arguments: [0, 1])
    func tiny(byteCount: Int) async throws {
        let (scratch, bytes) = try scratch(byteCount: byteCount)
        let result = try await run(
            Self.configuration(["tcp", "udp"]),
            folder: scratch.path + "/run",
            base: scratch.path
        )
        #expect(result.errors.isEmpty)
        #expect(scratch.contents("run/out.bin") == bytes)
    }

    @Test("several clients and ranges at once", arguments: ["tcp", "udp"])
    func manyClients(scheme: String) async throws {
        let (scratch, bytes) = try scratch(byteCount: 1_000_000)
        var text = "run: { duration: 60s }\npipelines:\n"
        for client in 0..<8 {
            text += """
                  client\(client):
                    sources: [ { name: a, url: "\(scheme)://@server", object: "film/movie 1.bin" } ]
                    capture: { type: movie, chunk: 64KiB }
                    stages: [ { type: single, outstanding: 4 }, { type: fetch } ]
                    sinks: [ { type: file, path: "out\(client).bin" } ]

                """
        }
        text += "  server: { capture: { type: \(scheme)_serve, directory: . }, sinks: [ { type: reply } ] }\n"
        let result = try await run(text, folder: scratch.path + "/run", base: scratch.path)
        #expect(result.errors.isEmpty)
        for client in 0..<8 { #expect(scratch.contents("run/out\(client).bin") == bytes) }
    }

    @Test("two servers with different objects under one name: a clear error, and no file")
    func differentObjects() async throws {
        let scratch = try Scratch()
        for (name, seed) in [("a", 1), ("b", 2)] as [(String, UInt64)] {
            try FileManager.default.createDirectory(
                atPath: scratch.path + "/" + name,
                withIntermediateDirectories: true
            )
            try scratch.file("\(name)/m.bin", byteCount: 200_000, seed: seed)
        }
        let text = """
            run: { duration: 60s }
            pipelines:
              client:
                sources: [ { name: a, url: "tcp://@a/m.bin" }, { name: b, url: "udp://@b/m.bin" } ]
                capture: { type: movie }
                stages: [ { type: alternate }, { type: fetch } ]
                sinks: [ { type: file, path: out.bin } ]
              a: { capture: { type: tcp_serve, directory: a }, stages: [ { type: pacer, rate: 500kbit/s } ], sinks: [ { type: reply } ] }
              b: { capture: { type: udp_serve, directory: b }, stages: [ { type: pacer, rate: 500kbit/s } ], sinks: [ { type: reply } ] }
            """
        let result = try await run(text, folder: scratch.path + "/run", base: scratch.path)
        #expect(result.errors.count == 1)
        #expect(result.errors.first?.message.contains("offer different objects: 200000 bytes, SHA-256") == true)
        #expect(scratch.contents("run/out.bin") == nil)
    }

    @Test(
        "an unknown name is 'no such object', and names that lead out are refused and counted",
        arguments: ["tcp", "udp"]
    )
    func names(scheme: String) async throws {
        let scratch = try Scratch()
        try FileManager.default.createDirectory(atPath: scratch.path + "/served", withIntermediateDirectories: true)
        try scratch.file("secret.bin", byteCount: 10)
        try FileManager.default.createSymbolicLink(
            atPath: scratch.path + "/served/link.bin",
            withDestinationPath: scratch.path + "/secret.bin"
        )
        for (name, counter) in [
            ("nothing.bin", "names_missing"), ("../secret.bin", "names_leaves_folder"),
            ("/etc/hostname", "names_absolute"), ("link.bin", "names_link_outside"), ("a%00b", "names_nul"),
            ("%FF", "names_not_utf8"), (String(repeating: "x", count: 300), "names_too_long"),
            (".", "names_leaves_folder"),
        ] {
            let text = """
                run: { duration: 20s }
                pipelines:
                  client:
                    sources: [ { name: a, url: "\(scheme)://@server/\(name)" } ]
                    capture: { type: movie }
                    stages: [ { type: single }, { type: fetch } ]
                    sinks: [ { type: "null" } ]
                  server: { capture: { type: \(scheme)_serve, directory: served }, sinks: [ { type: reply } ] }
                """
            let result = try await run(text, folder: nil, base: scratch.path)
            #expect(result.errors.first?.message.contains("no such object") == true, "\(name): \(result.errors)")
            #expect(try summary(result, "server", "\(scheme)_serve")[counter]?.integer == 1, "\(name)")
        }
    }

    @Test("a rate is kept: the pacer's, whatever the socket could do", arguments: ["tcp", "udp"])
    func paced(scheme: String) async throws {
        let (scratch, bytes) = try scratch(byteCount: 500_000)
        let result = try await run(
            Self.configuration([scheme], rate: "4Mbit/s"),
            folder: scratch.path + "/run",
            base: scratch.path
        )
        let finish = try #require(summary(result, "client", "playout")["finish_ns"]?.integer)
        // 500,000 bytes at 4 Mbit/s are a second; faster it cannot be but for the burst.
        #expect(finish >= 990_000_000)
        #expect(scratch.contents("run/out.bin") == bytes)
    }
}
