import Delivery
import Foundation
import Lab
import PipelineCore
import PipelineRuntime
import Testing

/// A server that lies, breaks off or trickles, over TCP, on a thread of its own. It offers the truth.
final class FaultyServer: Sendable {
    enum Fault: Sendable { case wrongBytes, closesMidChunk, trickles }
    let port: UInt16
    private let descriptor: CInt
    private let object: [UInt8]
    private let digests: ObjectDigests
    private let fault: Fault

    init(_ fault: Fault, object: [UInt8]) throws {
        var builder = DigestBuilder()
        builder.append(object)
        digests = builder.finish()
        self.object = object
        self.fault = fault
        let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        self.descriptor = descriptor
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                let status = unsafe bind(descriptor, $0, length)
                unsafe getsockname(descriptor, $0, &length)
                return status
            }
        }
        try #require(bound == 0 && listen(descriptor, 8) == 0)
        port = UInt16(bigEndian: address.sin_port)
        let thread = Thread { [self] in serve() }
        thread.start()
    }

    /// Ends the server: whoever waits in accept is woken.
    func stop() {
        shutdown(descriptor, CInt(SHUT_RDWR))
        close(descriptor)
    }

    private func serve() {
        while true {
            let client = accept(descriptor, nil, nil)
            guard client >= 0 else { return }
            let thread = Thread { [self] in
                talk(client)
                close(client)
            }
            thread.start()
        }
    }

    private func read(_ client: CInt, _ count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let got = unsafe bytes.withUnsafeMutableBytes {
                unsafe recv(client, $0.baseAddress! + filled, count - filled, 0)
            }
            guard got > 0 else { return nil }
            filled += got
        }
        return bytes
    }

    private func write(_ client: CInt, _ bytes: [UInt8]) -> Bool {
        unsafe send(client, bytes, bytes.count, CInt(MSG_NOSIGNAL)) == bytes.count
    }

    private func talk(_ client: CInt) {
        var sequence: UInt64 = 0
        func answer(_ payload: some WirePayload, _ flow: UInt32, _ flags: WireFlags = []) -> Bool {
            sequence += 1
            return write(client, payload.message(flow: flow, sequence: sequence, sendTime: 0, flags: flags))
        }
        while let head = read(client, WireHeader.byteCount), let header = try? WireHeader.read(head.span.bytes),
            let body = read(client, Int(header.payloadByteCount))
        {
            switch header.type {
            case .hello:
                let offer = Offer(
                    byteCount: UInt64(object.count),
                    modified: 0,
                    blockByteCount: 65_536,
                    digest: digests.whole,
                    root: digests.root
                )
                guard answer(offer, header.flow) else { return }
            case .blocks:
                guard let request = BlocksRequest(body.span.bytes) else { return }
                let part = Array(
                    digests.blocks[Int(request.first) * 32..<(Int(request.first) + Int(request.count)) * 32]
                )
                guard answer(BlocksAnswer(first: request.first, digests: part), header.flow, .response) else { return }
            case .request:
                guard let request = RangeRequest(body.span.bytes) else { return }
                for range in request.ranges {
                    guard give(client, header.flow, range, &sequence) else { return }
                }
                guard answer(RequestDone(id: request.id, lastSequence: sequence), header.flow) else { return }
            default: break
            }
        }
    }

    private func give(_ client: CInt, _ flow: UInt32, _ range: Range<UInt64>, _ sequence: inout UInt64) -> Bool {
        for offset in stride(from: range.lowerBound, to: range.upperBound, by: 16_384) {
            var bytes = Array(object[Int(offset)..<Int(min(offset + 16_384, range.upperBound))])
            var message: [UInt8] = []
            WireHeader(
                .data,
                flow: flow,
                sequence: sequence,
                sendTime: 0,
                objectOffset: offset,
                payloadByteCount: UInt16(bytes.count)
            ).append(to: &message)
            sequence += 1
            switch fault {
            case .wrongBytes: bytes[0] ^= 0xFF
            case .closesMidChunk:
                _ = write(client, message + bytes.prefix(100))
                return false
            case .trickles:
                guard write(client, message) else { return false }
                // A byte, then no more until the client gives up: slower than any that trickles.
                guard write(client, [bytes[0]]) else { return false }
                return read(client, 1 << 20) != nil
            }
            guard write(client, message + bytes) else { return false }
        }
        return true
    }
}

@Suite("Real faults", .tags(.real), .serialized)
struct RealFaultTests {
    private static func client(_ urls: [String], chunk: String = "64KiB", duration: String = "60s") -> String {
        let sources = urls.enumerated().map { "{ name: s\($0), url: \"\($1)\" }" }.joined(separator: ", ")
        return """
            run: { duration: \(duration) }
            pipelines:
              client:
                sources: [ \(sources) ]
                capture: { type: movie, chunk: \(chunk) }
                stages: [ { type: pull }, { type: fetch } ]
                sinks: [ { type: playout, bitrate: 2Mbit/s, start: 3s }, { type: chunk_log }, { type: file, path: out.bin } ]

            """
    }

    private static func server(_ scheme: String = "tcp", rate: String = "8Mbit/s") -> String {
        """
          good:
            capture: { type: \(scheme)_serve, directory: ., frame: 8KiB, ahead: 16KiB }
            stages: [ { type: pacer, rate: \(rate), burst: 8KiB } ]
            sinks: [ { type: reply } ]

        """.replacing(scheme == "udp" ? "frame: 8KiB, " : "~", with: "")
    }

    @Test(
        "beside a good server, a faulty one costs no byte and no stall, and the log names what it did",
        arguments: [
            (FaultyServer.Fault.wrongBytes, "source_wrong_bytes"), (.closesMidChunk, "source_closed"),
            (.trickles, "source_suspect"),
        ]
    )
    func faulty(fault: FaultyServer.Fault, event: String) async throws {
        let scratch = try Scratch()
        let bytes = try scratch.file("m.bin", byteCount: 3_000_000)
        let faulty = try FaultyServer(fault, object: bytes)
        defer { faulty.stop() }
        let text = Self.client(["tcp://@good/m.bin", "tcp://127.0.0.1:\(faulty.port)/m.bin"]) + Self.server()
        let result = try await run(text, folder: scratch.path + "/run", base: scratch.path)
        #expect(result.errors.isEmpty)
        #expect(scratch.contents("run/out.bin") == bytes)
        let named = events(in: scratch.path + "/run").filter { $0["type"] as? String == event }
        #expect(named.contains { $0["source"] as? String == "s1" })
        #expect(!named.contains { $0["source"] as? String == "s0" })
        #expect(try summary(result, "client", "playout")["stall_count"]?.integer == 0)
    }

    @Test("a server that refuses is named; the movie comes from the other", arguments: ["tcp", "udp"])
    func refusing(scheme: String) async throws {
        let scratch = try Scratch()
        let bytes = try scratch.file("m.bin", byteCount: 1_000_000)
        // A port that was free a moment ago, and that nobody listens at.
        let closed = try FaultyServer(.wrongBytes, object: [0])
        closed.stop()
        let text = Self.client(["\(scheme)://127.0.0.1:\(closed.port)/m.bin", "tcp://@good/m.bin"]) + Self.server()
        let result = try await run(text, folder: scratch.path + "/run", base: scratch.path)
        #expect(result.errors.isEmpty)
        #expect(scratch.contents("run/out.bin") == bytes)
        let found = events(in: scratch.path + "/run").contains {
            $0["type"] as? String == "source_refused" && $0["source"] as? String == "s0"
        }
        #expect(found)
    }

    @Test("nobody left to fetch from ends the run with a reason for each")
    func nobody() async throws {
        let scratch = try Scratch()
        let closed = try FaultyServer(.wrongBytes, object: [0])
        closed.stop()
        let text = Self.client(["tcp://127.0.0.1:\(closed.port)/m.bin"]).replacing(
            "{ type: fetch }",
            with: "{ type: fetch, patience: 500ms }"
        )
        let result = try await run(text, folder: scratch.path + "/run", base: scratch.path)
        #expect(result.errors.count == 1)
        #expect(result.errors.first?.message.contains("no source is left: 's0': cannot connect") == true)
    }

    @Test(
        "a server killed or frozen in the middle: the movie arrives whole, without a stall",
        arguments: [
            ("tcp", SIGKILL, ["source_closed", "source_refused"]),
            ("udp", SIGKILL, ["source_closed", "source_refused", "source_suspect"]),
            ("tcp", SIGSTOP, ["source_suspect"]), ("udp", SIGSTOP, ["source_suspect"]),
        ]
    )
    func process(scheme: String, signal: CInt, names: [String]) async throws {
        let scratch = try Scratch()
        let bytes = try scratch.file("m.bin", byteCount: 3_000_000)
        let server = try Program(
            ["serve", scratch.path, "--\(scheme)", "127.0.0.1:0", "--rate", "4Mbit/s", "--quiet"],
            in: scratch.path
        )
        let address = try #require(server.line().split(separator: " ").last)
        let text =
            Self.client(["\(scheme)://\(address)/m.bin", "\(scheme)://@good/m.bin"])
            + Self.server(scheme, rate: "4Mbit/s")
        // The fault comes when the log shows that the server has delivered something.
        let folder = scratch.path + "/run"
        let id = server.id
        let trigger = DispatchSource.makeTimerSource()
        trigger.schedule(deadline: .now(), repeating: .milliseconds(5))
        trigger.setEventHandler {
            let rows = (try? ChunkTable(path: folder))?.rows.count { $0.source == "s0" } ?? 0
            if rows >= 2, rows < 6 { kill(id, signal) }
        }
        trigger.resume()
        let result = try await run(text, folder: folder, base: scratch.path)
        trigger.cancel()
        #expect(result.errors.isEmpty)
        #expect(scratch.contents("run/out.bin") == bytes)
        let found = events(in: folder).contains {
            names.contains($0["type"] as? String ?? "") && $0["source"] as? String == "s0"
        }
        #expect(found)
        #expect(try summary(result, "client", "playout")["stall_count"]?.integer == 0)
        server.signal(SIGKILL)
    }

    @Test("a full disk and a folder that cannot be written give one clear error")
    func disk() async throws {
        let scratch = try Scratch()
        try scratch.file("m.bin", byteCount: 1_000_000)
        try FileManager.default.createSymbolicLink(
            atPath: scratch.path + "/full.bin.part",
            withDestinationPath: "/dev/full"
        )
        let text = Self.client(["tcp://@good/m.bin"]) + Self.server(rate: "100Mbit/s")
        let full = try await run(
            text.replacing("path: out.bin", with: "path: \(scratch.path)/full.bin"),
            folder: nil,
            base: scratch.path
        )
        #expect(full.errors.map(\.message) == ["cannot write '\(scratch.path)/full.bin.part': No space left on device"])
        let nowhere = try await run(
            text.replacing("path: out.bin", with: "path: /dev/null/x.bin"),
            folder: nil,
            base: scratch.path
        )
        #expect(nowhere.errors.map(\.message) == ["cannot write '/dev/null/x.bin.part': Not a directory"])
        await #expect(throws: StageError.self) { try await run(text, folder: "/dev/null/run", base: scratch.path) }
    }

    @Test("a file that is there is not overwritten without force, and the server's copy is untouched")
    func existing() async throws {
        let scratch = try Scratch()
        let bytes = try scratch.file("m.bin", byteCount: 100_000)
        let old = try scratch.file("old.bin", byteCount: 10, seed: 9)
        let text = Self.client(["tcp://@good/m.bin"]) + Self.server()
        let refused = try await run(
            text.replacing("path: out.bin", with: "path: \(scratch.path)/old.bin"),
            folder: nil,
            base: scratch.path
        )
        #expect(refused.errors.count == 1)
        #expect(scratch.contents("old.bin") == old)
        let forced = try await run(
            text.replacing("path: out.bin", with: "path: \(scratch.path)/old.bin, force: true"),
            folder: nil,
            base: scratch.path
        )
        #expect(forced.errors.isEmpty)
        #expect(scratch.contents("old.bin") == bytes)
    }

    /// A socket connected to a server of this machine.
    private func connected(_ address: String, _ type: CInt) throws -> CInt {
        let port = try #require(address.split(separator: ":").last.flatMap { UInt16($0) })
        let descriptor = socket(AF_INET, type, 0)
        var target = sockaddr_in()
        target.sin_family = sa_family_t(AF_INET)
        target.sin_port = port.bigEndian
        target.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let status = withUnsafePointer(to: &target) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        try #require(status == 0)
        return descriptor
    }

    @Test("10,000 random datagrams and 1,000 random connections: it serves on, and keeps nothing of them")
    func noise() async throws {
        let scratch = try Scratch()
        let bytes = try scratch.file("m.bin", byteCount: 500_000)
        let server = try Program(
            ["serve", scratch.path, "--tcp", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--quiet", "--json"],
            in: scratch.path
        )
        let tcp = String(server.line().dropFirst(4))
        let udp = String(server.line().dropFirst(4))
        var generator = SeededGenerator(seed: 11)
        func noise(_ count: Int) -> [UInt8] {
            var bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
            // Half of them look like ours.
            if count >= 32, Bool.random(using: &generator) {
                bytes.replaceSubrange(0..<3, with: [0x54, 0x42, 0x10 | UInt8.random(in: 0...15, using: &generator)])
            }
            return bytes
        }
        let datagrams = try connected(udp, CInt(SOCK_DGRAM.rawValue))
        var sent = 0
        for _ in 0..<10_000 {
            let bytes = noise(Int.random(in: 1...1_300, using: &generator))
            if unsafe send(datagrams, bytes, bytes.count, CInt(MSG_NOSIGNAL)) > 0 { sent += bytes.count }
        }
        var answered = 0
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let got = unsafe recv(datagrams, &buffer, buffer.count, CInt(MSG_DONTWAIT))
            if got <= 0 { break }
            answered += got
        }
        close(datagrams)
        #expect(answered <= 3 * sent)
        for _ in 0..<1_000 {
            let connection = try connected(tcp, CInt(SOCK_STREAM.rawValue))
            let bytes = noise(Int.random(in: 1...2_000, using: &generator))
            _ = unsafe send(connection, bytes, bytes.count, CInt(MSG_NOSIGNAL))
            close(connection)
        }
        // A good client of both is served as if nothing had been.
        let result = try await run(
            Self.client(["tcp://\(tcp)/m.bin", "udp://\(udp)/m.bin"]),
            folder: scratch.path + "/run",
            base: scratch.path
        )
        #expect(result.errors.isEmpty)
        #expect(scratch.contents("run/out.bin") == bytes)
        let status = try String(contentsOfFile: "/proc/\(server.id)/status", encoding: .utf8)
        let resident = status.split(separator: "\n").first { $0.hasPrefix("VmHWM") }?.split(separator: " ").dropLast()
            .last
        #expect(try #require(resident.flatMap { Int($0) }) < 200_000, "kB")
        server.signal(SIGTERM)
        let (exit, output, errors) = server.end()
        #expect(exit == 0, "\(errors)")
        let json = try #require(JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any])
        let tcpStages = try #require((json["server0"] as? [String: Any])?["stages"] as? [String: Any])
        let counters = try #require(tcpStages["tcp_serve"] as? [String: Any])
        #expect(counters["connections_accepted"] as? Int == 1_001)
        #expect(counters["connections_open"] as? Int == 0)
    }

    @Test("an address without a cookie gets at most three times what it sent, and never data")
    func amplification() async throws {
        let scratch = try Scratch()
        try scratch.file("m.bin", byteCount: 500_000)
        let server = try Program(["serve", scratch.path, "--udp", "127.0.0.1:0", "--quiet"], in: scratch.path)
        let socket = try connected(String(server.line().dropFirst(4)), CInt(SOCK_DGRAM.rawValue))
        var timeout = timeval(tv_sec: 2, tv_usec: 0)
        unsafe setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        for message in [
            Hello(name: Array("m.bin".utf8)).message(
                flow: 1,
                sequence: 0,
                sendTime: 0,
                paddedTo: helloDatagramByteCount
            ),
            RangeRequest(id: 1, ranges: [0..<500_000]).message(flow: 1, sequence: 0, sendTime: 0),
            BlocksRequest(first: 0, count: 8).message(flow: 1, sequence: 0, sendTime: 0),
        ] {
            _ = unsafe send(socket, message, message.count, 0)
            var buffer = [UInt8](repeating: 0, count: 65_536)
            let got = unsafe recv(socket, &buffer, buffer.count, 0)
            #expect(got == 48 && got <= 3 * message.count)
            let answer = Array(buffer.prefix(48))
            #expect(try WireHeader.read(answer.span.bytes).type == .cookie)
        }
        close(socket)
        server.signal(SIGTERM)
        #expect(server.end().status == 0)
    }
}
