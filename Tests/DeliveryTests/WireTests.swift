import Delivery
import PipelineCore
import Testing

@Suite("Wire")
struct WireTests {
    @Test("the header's bytes are those of its table")
    func vector() throws {
        let header = WireHeader(
            .data,
            flags: .response,
            flow: 0x0102_0304,
            sequence: 0x1112_1314_1516_1718,
            sendTime: 0x2122_2324_2526_2728,
            objectOffset: 0x3132_3334_3536,
            payloadByteCount: 0x4142
        )
        var bytes: [UInt8] = []
        header.append(to: &bytes)
        #expect(
            bytes == [
                0x54, 0x42, 0x14, 0x01, 0x01, 0x02, 0x03, 0x04, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
                0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x41, 0x42,
            ]
        )
        #expect(try WireHeader.read(bytes.span.bytes) == header)
        var stored = [UInt8](repeating: 0, count: 32)
        unsafe stored.withUnsafeMutableBytes { unsafe header.store(into: $0) }
        #expect(stored == bytes)
    }

    @Test("what is no header is told apart: short, foreign, of an unknown type")
    func faults() {
        var bytes: [UInt8] = []
        WireHeader(.bye, flow: 1, sequence: 2, sendTime: 3, payloadByteCount: 7).append(to: &bytes)
        func fault(_ change: (inout [UInt8]) -> Void) -> WireHeader.Fault? {
            var changed = bytes
            change(&changed)
            do throws(WireHeader.Fault) {
                _ = try WireHeader.read(changed.span.bytes)
                return nil
            } catch {
                return error
            }
        }
        #expect(fault { _ in } == nil)
        #expect(fault { $0.removeLast() } == .short)
        #expect(fault { $0[0] = 0 } == .foreign)
        #expect(fault { $0[2] = 0x2A } == .foreign)
        #expect(fault { $0[2] = 0x1F } == .unknownType(payloadByteCount: 7))
    }

    private func roundTrip<Payload: WirePayload>(_ payload: Payload) {
        let message = payload.message(flow: 7, sequence: 8, sendTime: 9)
        let body = Array(message[32...])
        #expect(Payload(body.span.bytes) == payload)
        // Every truncation is refused; a HELLO alone may be followed by padding.
        for count in 0..<body.count where Payload.type != .error {
            let cut = Array(body.prefix(count))
            #expect(Payload(cut.span.bytes) == nil, "\(Payload.self) of \(count) bytes")
        }
    }

    @Test("every message is read as it was written, and no truncation of it is")
    func messages() {
        let digest = (0..<32).map(UInt8.init)
        roundTrip(Hello(name: Array("a/b.mp4".utf8)))
        roundTrip(Cookie((0..<16).map(UInt8.init)))
        roundTrip(Offer(byteCount: 1 << 40, modified: -1, blockByteCount: 65_536, digest: digest, root: digest))
        roundTrip(RangeRequest(id: 3, ranges: [0..<5, 1_000_000_000_000..<1_000_000_000_001]))
        roundTrip(RequestDone(id: 3, lastSequence: .max))
        roundTrip(RequestCancel(id: 9))
        roundTrip(BlocksRequest(first: 1, count: 2))
        roundTrip(BlocksAnswer(first: 1, digests: digest + digest))
        roundTrip(WireFailure(.busy, "no room"))
    }

    @Test("a HELLO over UDP has 1,200 bytes, a request of 90 ranges fits in as many")
    func sizes() {
        #expect(
            Hello(name: [1]).message(flow: 0, sequence: 0, sendTime: 0, paddedTo: helloDatagramByteCount).count == 1_200
        )
        let ranges = (0..<UInt64(RangeRequest.rangeLimit)).map { $0 * 10..<$0 * 10 + 1 }
        #expect(RangeRequest(id: 1, ranges: ranges).message(flow: 0, sequence: 0, sendTime: 0).count <= 1_200)
        let digests = [UInt8](repeating: 1, count: 32 * BlocksAnswer.datagramLimit)
        #expect(BlocksAnswer(first: 0, digests: digests).message(flow: 0, sequence: 0, sendTime: 0).count <= 1_200)
    }

    @Test("100,000 random payloads are read or refused, and nothing traps")
    func random() {
        var generator = SeededGenerator(seed: 7)
        var accepted = 0
        for _ in 0..<100_000 {
            var bytes = (0..<Int.random(in: 0...120, using: &generator)).map { _ in
                UInt8.random(in: 0...255, using: &generator)
            }
            if bytes.count > 20, Bool.random(using: &generator) { bytes.replaceSubrange(16..<20, with: [0, 0, 0, 1]) }
            let span = bytes.span.bytes
            if Hello(span) != nil { accepted += 1 }
            if Offer(span) != nil { accepted += 1 }
            if RangeRequest(span) != nil { accepted += 1 }
            if BlocksRequest(span) != nil { accepted += 1 }
            if BlocksAnswer(span) != nil { accepted += 1 }
            if RequestDone(span) != nil { accepted += 1 }
            if RequestCancel(span) != nil { accepted += 1 }
            _ = try? WireHeader.read(span)
        }
        #expect(accepted > 0)
    }

    @Test(
        "a name cannot leave the folder",
        arguments: [
            ("", .empty), ("/etc/passwd", .absolute), ("..", .leavesFolder), ("a/../b", .leavesFolder),
            ("./a", .leavesFolder), ("a//b", .leavesFolder), ("a/", .leavesFolder), ("a\u{0}b", .nul),
            ("a\nb", .controlCharacter), ("a\\b", .controlCharacter), (String(repeating: "x", count: 300), .tooLong),
            (String(repeating: "x/", count: 600) + "y", .tooLong),
        ] as [(String, ObjectName.Refusal)]
    )
    func names(name: String, refusal: ObjectName.Refusal) {
        #expect(throws: refusal) { try ObjectName(Array(name.utf8)) }
    }

    @Test("a name that is not UTF-8 is refused, one in any script is taken")
    func scripts() throws {
        #expect(throws: ObjectName.Refusal.notUTF8) { try ObjectName([0x61, 0xFF]) }
        #expect(throws: ObjectName.Refusal.notUTF8) { try ObjectName([0xC0, 0xAF]) }
        #expect(try ObjectName(Array("film/Čeština ☃.mp4".utf8)).text == "film/Čeština ☃.mp4")
    }
}

@Suite("Server cookies")
struct ServerCookieTests {
    @Test("hold for their address, in their epoch and the next")
    func validity() {
        let cookies = ServerCookies(key: Array(repeating: 1, count: 32))
        let cookie = cookies.cookie(for: [1, 2, 3], at: .zero)
        let epoch = ServerCookies.epoch
        #expect(cookies.isValid(cookie, for: [1, 2, 3], at: Timestamp(nanoseconds: 2 * epoch - 1)))
        #expect(!cookies.isValid(cookie, for: [1, 2, 3], at: Timestamp(nanoseconds: 2 * epoch)))
        #expect(!cookies.isValid(cookie, for: [1, 2, 4], at: .zero))
        #expect(!cookies.isValid(Array(cookie.dropLast()), for: [1, 2, 3], at: .zero))
        #expect(!ServerCookies().isValid(cookie, for: [1, 2, 3], at: .zero))
    }
}

@Suite("Source URLs")
struct SourceURLTests {
    @Test("are read in parts")
    func good() throws {
        let url = try SourceURL("udp://[::1]:5000/a%20b/%C4%8D.mp4")
        #expect(url.scheme == .udp)
        #expect(url.server == .address("[::1]:5000"))
        #expect(String(decoding: url.object, as: UTF8.self) == "a b/č.mp4")
        #expect(try SourceURL("tcp://@servers/m").server == .pipeline("servers"))
    }

    @Test(
        "or refused with a reason",
        arguments: [
            "", "tcp:/x", "http://h:1/x", "tcp://h/x", "tcp://h:0/x", "tcp://h:70000/x", "tcp://h:1", "tcp://h:1/",
            "tcp://::1:5/x", "tcp://@/x", "tcp://h:1/%zz", "tcp://h:1/%1",
        ]
    )
    func bad(text: String) {
        #expect(throws: SourceURL.Mistake.self) { try SourceURL(text) }
    }
}
