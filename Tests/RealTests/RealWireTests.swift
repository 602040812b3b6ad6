import CBatchIO
import CaptureFiles
import Foundation
import Lab
import PipelineCore
import Testing
import WireStages

#if Pcap
/// Live captures: what taps saw of real traffic is compared with the logs of it.
@Suite(
    "Real wire",
    .tags(.real),
    .serialized,
    .enabled(if: Network.obstacle == nil, "capturing needs root and network namespaces")
)
struct RealWireTests {
    /// The parts of `crosscheck.json` that tests look at.
    private struct Output: Decodable {
        struct Count: Decodable { var count: Int64 }
        struct Datagrams: Decodable {
            var sent, wire_out, wire_in, received, stamps_equal, drops_attributed: Int64
            var sent_only, path_lost, wire_only, received_only, unsent, drops_unattributed, stamps_differ: Count
            var left_before_sent, came_before_left, stamped_before_came: Count
        }
        struct Tap: Decodable {
            var name: String
            var delivered: Int64
            var received, dropped, unread: Int64?
        }
        struct Counters: Decodable { var queue_dropped, socket_dropped: Int64? }
        var verdict: String
        var reasons: [String]
        var datagrams: Datagrams?
        var taps: [Tap]
        var counters: Counters
    }

    /// One end of a path: a run of its own, in a namespace of its own.
    private func receive(_ network: Network, _ scratch: Scratch, options: String = "", tap: String = "") throws
        -> Program
    {
        let text = """
            run: { duration: 1min }
            pipelines:
              receiver:
                capture: { type: udp_receive, listen: "10.99.0.2:5601"\(options) }
                sinks: [ { type: flow_stats } ]
                observers: [ { type: datagram_log }, { type: pcap, interface: veth1, role: rx, snaplen: 128B\(tap) } ]
            """
        try Data(text.utf8).write(to: URL(filePath: scratch.path + "/receive.yaml"))
        let program = try Program(
            ["run", "receive.yaml", "--quiet", "--out", "receive"],
            in: scratch.path,
            namespace: network.far
        )
        // The socket is bound when the tap is live.
        while try !network.run(in: network.far, "ss", "-Huln").contains(":5601") {}
        return program
    }

    private func send(
        _ network: Network,
        _ scratch: Scratch,
        size: Int,
        count: Int,
        rate: String,
        generator: String = "",
        tap: String = ""
    ) throws {
        let text = """
            run: { duration: 1min }
            pipelines:
              sender:
                capture: { type: generator, size: \(size)B, count: \(count)\(generator) }
                stages: [ { type: pacer, rate: \(rate) }, { type: udp_send, to: "10.99.0.2:5601" } ]
                sinks: [ { type: flow_stats } ]
                observers: [ { type: datagram_log }, { type: pcap, interface: veth0, role: tx, snaplen: 128B\(tap) } ]
            """
        try Data(text.utf8).write(to: URL(filePath: scratch.path + "/send.yaml"))
        let (_, _, errors) = try Program(
            ["run", "send.yaml", "--quiet", "--out", "send"],
            in: scratch.path,
            namespace: network.near
        ).end()
        #expect(!errors.contains("error:"), "\(errors)")
    }

    private func folders(_ scratch: Scratch) throws -> [String] {
        try ["send", "receive"].map { side in
            let names = try FileManager.default.contentsOfDirectory(atPath: scratch.path + "/" + side)
            return side + "/" + (try #require(names.max()))
        }
    }

    private func check(_ scratch: Scratch, _ folders: [String]) throws -> (status: CInt, output: Output) {
        let (status, text, errors) = try Program(["wire", "check", "--json"] + folders, in: scratch.path).end()
        guard let output = try? JSONDecoder().decode(Output.self, from: Data(text.utf8)) else {
            throw Failure(text: errors)
        }
        return (status, output)
    }
    private struct Failure: Error { var text: String }

    private func bothEnds(
        _ network: Network,
        size: Int,
        count: Int,
        rate: String,
        generator: String = "",
        receiver: String = ", gro: false",
        tap: String = ""
    ) throws -> (scratch: Scratch, status: CInt, output: Output) {
        let scratch = try Scratch()
        let program = try receive(network, scratch, options: receiver, tap: tap)
        try send(network, scratch, size: size, count: count, rate: rate, generator: generator, tap: tap)
        program.signal(SIGINT)
        _ = program.end()
        let (status, output) = try check(scratch, try folders(scratch))
        return (scratch, status, output)
    }

    @Test(
        "two taps on a veth pair, 100,000 datagrams at 100 kpps: every one accounted for, three times of three",
        arguments: [200, 1_200]
    )
    func taps(size: Int) throws {
        let network = try Network()
        for _ in 0..<3 {
            let (_, status, output) = try bothEnds(network, size: size, count: 100_000, rate: "\(size * 8 * 100)kbit/s")
            let datagrams = try #require(output.datagrams)
            #expect(status == 0, "\(output.reasons)")
            #expect(output.verdict == "CONFIRMED")
            #expect((datagrams.sent, datagrams.wire_out, datagrams.wire_in) == (100_000, 100_000, 100_000))
            #expect(datagrams.received + (output.counters.socket_dropped ?? 0) == 100_000)
            #expect(datagrams.stamps_equal == datagrams.received)
            #expect(
                datagrams.left_before_sent.count + datagrams.came_before_left.count
                    + datagrams.stamped_before_came.count == 0
            )
            #expect(output.taps.allSatisfy { $0.unread == 0 && $0.dropped == 0 })
        }
    }

    @Test("super-packets are expanded by their stride from 128 captured bytes")
    func superPackets() throws {
        let (_, status, output) = try bothEnds(
            try Network(),
            size: 1_200,
            count: 50_000,
            rate: "960Mbit/s",
            generator: ", segments: 50",
            receiver: ", gro: true"
        )
        #expect(status == 0, "\(output.reasons)")
        #expect(output.datagrams?.wire_in == 50_000)
        #expect(output.taps.allSatisfy { $0.delivered < 2_000 })
    }

    @Test("a receiver that is too slow: what only the wire has is the socket's drop counter, each one attributed")
    func slowReceiver() throws {
        let (_, status, output) = try bothEnds(
            try Network(),
            size: 200,
            count: 20_000,
            rate: "48Mbit/s",
            receiver: ", gro: false, nap: 5ms, receive_buffer: 8KiB, batch: 8"
        )
        let datagrams = try #require(output.datagrams)
        #expect(status == 0, "\(output.reasons)")
        #expect(datagrams.wire_only.count == output.counters.socket_dropped)
        #expect(datagrams.wire_only.count > 10_000)
        #expect(datagrams.drops_attributed == datagrams.received)
        #expect(datagrams.drops_unattributed.count == 0)
    }

    @Test("a queue that drops: what was sent and did not leave is its counter")
    func queue() throws {
        let network = try Network()
        let bucket = "qdisc add dev veth0 root tbf rate 20mbit burst 16kb latency 50ms"
        try Network.must(["ip", "netns", "exec", network.near, "tc"] + bucket.split(separator: " ").map(String.init))
        let (_, status, output) = try bothEnds(network, size: 1_200, count: 3_000, rate: "60Mbit/s")
        #expect(status == 0, "\(output.reasons)")
        #expect(output.datagrams?.sent_only.count == output.counters.queue_dropped)
        #expect(output.datagrams?.sent_only.count ?? 0 > 1_000)
    }

    @Test("a ring that is too small contradicts nobody, and says what it lost")
    func smallRing() throws {
        let (_, status, output) = try bothEnds(
            try Network(),
            size: 200,
            count: 60_000,
            rate: "160Mbit/s",
            tap: ", ring: 64KiB, timeout: 100ms"
        )
        #expect(status == 3)
        #expect(output.verdict == "INCONCLUSIVE")
        for tap in output.taps {
            #expect(tap.dropped ?? 0 > 0)
            #expect(tap.delivered + (tap.dropped ?? 0) == tap.received)
        }
    }

    @Test("a log that was changed is named")
    func changedLog() throws {
        let (scratch, status, _) = try bothEnds(try Network(), size: 200, count: 2_000, rate: "16Mbit/s")
        #expect(status == 0)
        let folders = try folders(scratch)
        let path = scratch.path + "/" + folders[1] + "/datagrams-receiver.log"
        var bytes = [UInt8](try Data(contentsOf: URL(filePath: path)))
        bytes.removeSubrange(16 + 40 * 1_000..<16 + 40 * 1_001)
        try Data(bytes).write(to: URL(filePath: path))
        let (after, output) = try check(scratch, folders)
        #expect(after == 2)
        #expect(output.reasons.first?.contains("receive log is wrong") == true, "\(output.reasons)")
        #expect(output.datagrams?.wire_only.count == 1)
    }

    @Test("nothing is left unread when a tap stops, ten times of ten; other programs read what it wrote")
    func stopping() throws {
        let network = try Network()
        let scratch = try Scratch()
        let text = """
            run: { duration: 1min }
            pipelines:
              receiver:
                capture: { type: udp_receive, listen: "127.0.0.1:5602", gro: false }
                sinks: [ { type: flow_stats } ]
                observers: [ { type: datagram_log }, { type: pcap, interface: lo, snaplen: 128B } ]
              sender:
                capture: { type: generator, size: 200B, count: 5000 }
                stages: [ { type: pacer, rate: 160Mbit/s }, { type: udp_send, to: "127.0.0.1:5602" } ]
                sinks: [ { type: flow_stats } ]
                observers: [ { type: datagram_log } ]
            """
        try Data(text.utf8).write(to: URL(filePath: scratch.path + "/both.yaml"))
        var folder = ""
        for index in 0..<10 {
            let (status, _, errors) = try Program(
                ["run", "both.yaml", "--quiet", "--out", "run\(index)"],
                in: scratch.path,
                namespace: network.near
            ).end()
            #expect(status == 0, "\(errors)")
            folder =
                "run\(index)/"
                + (try #require(FileManager.default.contentsOfDirectory(atPath: scratch.path + "/run\(index)").first))
            let (_, output) = try check(scratch, [folder])
            #expect(output.verdict == "CONFIRMED", "\(output.reasons)")
            #expect(output.taps.allSatisfy { $0.unread == 0 })
        }
        try readElsewhere(scratch, folder)
    }

    /// `annotated.pcapng` in capinfos, tcpdump and tshark, and the dissector's fields beside ours.
    private func readElsewhere(_ scratch: Scratch, _ folder: String) throws {
        let file = scratch.path + "/" + folder + "/annotated.pcapng"
        let info = try Network.command("capinfos", file)
        #expect(info.status == 0)
        #expect(info.output.contains("CONFIRMED"))
        #expect(info.output.contains("nanoseconds"))
        let dump = try Network.command("tcpdump", "-n", "-r", file, "-w", "/dev/null")
        #expect(dump.status == 0, "\(dump.output)")
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let script = root.appending(path: "tools/wireshark/tributary.lua").path
        let names = ["type", "flags", "flow", "sequence", "send_time", "offset", "payload_length"].map {
            "tributary." + $0
        }
        let (status, text) = try Network.command(
            [
                "tshark", "-X", "lua_script:" + script, "-r", file, "-T", "fields", "-E", "separator=,", "-Y",
                "tributary",
            ] + names.flatMap { ["-e", $0] }
        )
        #expect(status == 0, "\(text.prefix(500))")
        let rows = text.split(separator: "\n").filter { $0.first?.isNumber == true }
        let ours = try Program(["wire", "show", file, "--json"], in: scratch.path).end().output.split(separator: "\n")
            .compactMap { line -> String? in
                let object = (try? JSONSerialization.jsonObject(with: Data(line.utf8))) as? [String: Any] ?? [:]
                let values = names.compactMap { (object[$0] as? NSNumber)?.int64Value }
                return values.count == names.count ? values.map(String.init).joined(separator: ",") : nil
            }
        #expect(rows.count == ours.count)
        #expect(rows.map(String.init) == ours)
        #expect(rows.count > 5_000)
        let comments = try Network.command(
            "tshark",
            "-r",
            file,
            "-T",
            "fields",
            "-e",
            "frame.comment",
            "-Y",
            "frame.comment"
        )
        #expect(comments.output.contains("flow 1 seq"))
    }

    @Test(
        "a movie from two servers: its log is confirmed, and every chunk has its times on the wire",
        arguments: ["tcp", "udp"]
    )
    func movie(transport: String) async throws {
        let scratch = try Scratch()
        try scratch.file("movie.bin", byteCount: 1_000_000)
        let folder = scratch.path + "/run"
        let text = """
            run: { duration: 1min }
            pipelines:
              client:
                sources:
                  - { name: a, url: "\(transport)://@a", object: movie.bin }
                  - { name: b, url: "\(transport)://@b", object: movie.bin }
                capture: { type: movie, chunk: 32KiB }
                stages: [ { type: earliest_delivery }, { type: fetch } ]
                sinks: [ { type: playout, bitrate: 8Mbit/s, preset: eager }, { type: chunk_log } ]
                observers: [ { type: pcap, interface: lo } ]
              a:
                capture: { type: \(transport)_serve, directory: . }
                stages: [ { type: pacer, rate: 12Mbit/s } ]
                sinks: [ { type: reply } ]
              b:
                capture: { type: \(transport)_serve, directory: . }
                stages: [ { type: pacer, rate: 4Mbit/s } ]
                sinks: [ { type: reply } ]
            """
        let result = try await run(text, folder: folder, base: scratch.path)
        #expect(result.errors.isEmpty, "\(result.errors)")
        let check = try WireCheck(folders: [folder])
        #expect(check.verdict == .confirmed, "\(check.reasons) \(check.wrongChunks)")
        #expect(check.chunks.count == 31)
        #expect(check.chunks.allSatisfy { $0.firstByte != nil && $0.lastByte != nil })
        #expect(check.chunkDelays.first { $0.name == "wire->whole" }?.least ?? -1 > -1_000)
        if transport == "tcp" {
            #expect(check.connections.reduce(0) { $0 + $1.fromA.acknowledgedUnseen + $1.fromB.acknowledgedUnseen } == 0)
        }
        // A chunk that is logged earlier than its bytes passed is found.
        let path = folder + "/chunks.csv"
        let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").map(String.init)
        var fields = lines[5].split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        fields[7] = String((Int64(fields[7]) ?? 0) - 20_000_000)
        try (lines[..<5] + [fields.joined(separator: ",")] + lines[6...]).joined(separator: "\n").appending("\n")
            .write(toFile: path, atomically: true, encoding: .utf8)
        #expect(try WireCheck(folders: [folder]).verdict == .contradicted)
    }

    @Test("over TCP the kernel's stamp follows the wire's within 50 us, for 99.9 % of what is read")
    func streamStamps() throws {
        let scratch = try Scratch()
        let listener = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        defer { close(listener) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        func call(_ body: (UnsafeMutablePointer<sockaddr>) -> CInt) -> CInt {
            withUnsafeMutablePointer(to: &address) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1, body) }
        }
        try #require(call { bind(listener, $0, length) } == 0 && listen(listener, 1) == 0)
        try #require(call { getsockname(listener, $0, &length) } == 0)
        var settings = PcapSettings()
        settings.filter = "tcp port \(UInt16(bigEndian: address.sin_port))"
        let path = scratch.path + "/tcp.pcapng"
        let tap = try PcapTap(settings, path: path, application: "test")
        try tap.start()
        let sender = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        defer { close(sender) }
        try #require(call { connect(sender, $0, length) } == 0)
        let receiver = accept(listener, nil, nil)
        defer { close(receiver) }
        var on: CInt = 1
        setsockopt(sender, CInt(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<CInt>.size))
        try #require(
            cbatchio_configure(receiver, AF_INET, UInt32(CBATCHIO_RECEIVE_STAMPS)) == UInt32(CBATCHIO_RECEIVE_STAMPS)
        )
        let vectors = try #require(cbatchio_create(1))
        defer { cbatchio_destroy(vectors) }
        var room = [UInt8](repeating: 0, count: 65_536)
        var reads: [(end: Int64, stamp: Int64)] = []
        var total: Int64 = 0
        let message = [UInt8](repeating: 7, count: 200)
        for _ in 0..<3_000 {
            try #require(message.withUnsafeBytes { write(sender, $0.baseAddress, $0.count) } == 200)
            var ready = pollfd(fd: receiver, events: Int16(POLLIN), revents: 0)
            try #require(poll(&ready, 1, 1_000) == 1)
            room.withUnsafeMutableBytes { raw in
                var packet = cbatchio_packet()
                (packet.bytes, packet.byte_count) = (raw.baseAddress, UInt32(raw.count))
                guard cbatchio_receive(vectors, receiver, &packet, 1, 1) == 1 else { return }
                total += Int64(packet.byte_count)
                reads.append((total, packet.kernel_time_ns))
            }
        }
        let outcome = tap.stop()
        #expect(outcome.unread == 0 && outcome.sawEnd)
        var reader = try CaptureReader(path: path)
        var map = TCPMap()
        while let packet = reader.next() {
            let file = reader.file
            let bytes = file.span.extracting(packet.bytes)
            let decoded = PacketDecoder.decode(
                bytes,
                originalLength: packet.originalLength,
                linkType: reader.interfaces[0].linkType
            )
            if decoded.isTCP { map.add(decoded, bytes, time: packet.time ?? 0) }
        }
        let stream = try #require(map.connections.first).fromA
        #expect(stream.uniqueByteCount == total)
        let delays = reads.compactMap { read in stream.times(of: read.end - 1..<read.end).map { read.stamp - $0.last } }
        #expect(delays.count == reads.count)
        #expect(delays.allSatisfy { $0 >= 0 })
        #expect(delays.count { $0 <= 50_000 } * 1_000 >= delays.count * 999)
    }

    @Test("the pcap stage brings packets into a pipeline, whole and stamped")
    func stage() throws {
        let network = try Network()
        let scratch = try Scratch()
        let text = """
            run: { duration: 10s }
            pipelines:
              tap:
                capture: { type: pcap, interface: lo, snaplen: 300B, filter: "udp port 5603" }
                sinks: [ { type: null } ]
              receiver:
                capture: { type: udp_receive, listen: "127.0.0.1:5603", gro: false }
                sinks: [ { type: flow_stats } ]
              sender:
                capture: { type: generator, size: 200B, count: 2000 }
                stages: [ { type: pacer, rate: 16Mbit/s }, { type: udp_send, to: "127.0.0.1:5603" } ]
                sinks: [ { type: flow_stats } ]
            """
        try Data(text.utf8).write(to: URL(filePath: scratch.path + "/stage.yaml"))
        let (status, _, errors) = try Program(
            ["run", "stage.yaml", "--quiet", "--out", "run"],
            in: scratch.path,
            namespace: network.near
        ).end()
        #expect(status == 0, "\(errors)")
        let folder =
            scratch.path + "/run/"
            + (try #require(FileManager.default.contentsOfDirectory(atPath: scratch.path + "/run").first))
        let object =
            try JSONSerialization.jsonObject(with: Data(contentsOf: URL(filePath: folder + "/summary.json")))
            as? [String: Any]
        let stages = ((object?["pipelines"] as? [String: Any])?["tap"] as? [String: Any])?["stages"] as? [String: Any]
        let counts = stages?["pcap"] as? [String: Any]
        #expect((counts?["packets"] as? NSNumber)?.intValue == 2_000)
        #expect((counts?["dropped"] as? NSNumber)?.intValue == 0)
    }

    @Test("in a user namespace of one's own no root is needed; without any privilege the error says how to grant it")
    func privileges() throws {
        let scratch = try Scratch()
        let outside = try Network.command(
            "unshare",
            "-rn",
            "sh",
            "-c",
            "ip link set lo up && cd \(scratch.path) && \(Program.path) wire capture lo x.pcapng --seconds 0.1"
        )
        #expect(outside.status == 0, "\(outside.output)")
        #expect(outside.output.contains("\"unread\":0"))
        let none = try Network.command(
            "setpriv",
            "--bounding-set=-all",
            "--inh-caps=-all",
            Program.path,
            "wire",
            "capture",
            "lo",
            scratch.path + "/y.pcapng",
            "--seconds",
            "0.1"
        )
        #expect(none.status == 1)
        #expect(none.output.contains("setcap cap_net_raw+ep"), "\(none.output)")
        #expect(!FileManager.default.fileExists(atPath: scratch.path + "/y.pcapng"))
    }
}
#else
@Suite("Real wire")
struct RealWireTests {
    @Test("live captures", .disabled("this build is without the trait Pcap: run tools/test"))
    func absent() {}
}
#endif
