import Delivery
import Foundation
import Measures
import NetworkStages
import PipelineCore
import RateTest
import Synchronization
import Testing

/// A server of this process, stopped at the end of the test.
private final class LocalServer {
    let server: TestServer
    private let ended = DispatchSemaphore(value: 0)

    init(secret: String? = nil, limit: Int = 16) throws {
        var options = TestServer.Options()
        options.listen = "127.0.0.1:0"
        options.secret = secret
        options.limit = limit
        let server = try TestServer(options: options)
        self.server = server
        let ended = ended
        Thread.detachNewThread {
            server.run()
            ended.signal()
        }
    }

    func stop() {
        server.stop()
        ended.wait()
    }
}

/// A relay for datagrams between one client and a server: drops, doubles and displaces DATA on the way up, and counts.
private final class Relay: Sendable {
    struct Counts {
        var data: Int64 = 0
        var dropped: Int64 = 0
        var doubled: Int64 = 0
        var displaced: Int64 = 0
    }
    let port: UInt16
    private let counts = Mutex(Counts())
    private let isStopping = Atomic<Bool>(false)
    private let ended = DispatchSemaphore(value: 0)

    init(to server: UInt16) throws {
        func address(_ port: UInt16) -> sockaddr_in {
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
            address.sin_port = port.bigEndian
            return address
        }
        @Sendable func withAddress<R>(
            _ address: inout sockaddr_in,
            _ body: (UnsafeMutablePointer<sockaddr>, socklen_t) -> R
        ) -> R {
            withUnsafeMutablePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
        }
        let front = socket(AF_INET, CInt(SOCK_DGRAM.rawValue), 0)
        let back = socket(AF_INET, CInt(SOCK_DGRAM.rawValue), 0)
        var own = address(0)
        try #require(withAddress(&own) { bind(front, $0, $1) } == 0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        try #require(withAddress(&own) { pointer, _ in getsockname(front, pointer, &length) } == 0)
        var there = address(server)
        try #require(withAddress(&there) { connect(back, $0, $1) } == 0)
        var room: CInt = 8 << 20
        for descriptor in [front, back] {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &room, socklen_t(MemoryLayout<CInt>.size))
        }
        port = UInt16(bigEndian: own.sin_port)
        Thread.detachNewThread { [self] in
            var client: [UInt8] = []
            var held: [UInt8]?
            var bytes = [UInt8](repeating: 0, count: 65_536)
            func forward(_ datagram: [UInt8]) {
                _ = datagram.withUnsafeBytes { Glibc.send(back, $0.baseAddress, $0.count, 0) }
            }
            while !isStopping.load(ordering: .relaxed) {
                var requests = [
                    pollfd(fd: front, events: Int16(POLLIN), revents: 0),
                    pollfd(fd: back, events: Int16(POLLIN), revents: 0),
                ]
                guard poll(&requests, 2, 20) > 0 else {
                    // Nothing follows: what waits for a follower goes without one.
                    if let last = held { forward(last) }
                    held = nil
                    continue
                }
                if requests[0].revents != 0 {
                    var from = sockaddr_in()
                    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
                    let got = withAddress(&from) { pointer, _ in recvfrom(front, &bytes, bytes.count, 0, pointer, &size)
                    }
                    guard got > 0 else { continue }
                    client = withUnsafeBytes(of: from) { Array($0) }
                    let datagram = Array(bytes[..<got])
                    guard got >= 32, datagram[2] & 0xF == WireType.data.rawValue else {
                        forward(datagram)
                        continue
                    }
                    let number = counts.withLock { counts -> Int64 in
                        counts.data += 1
                        return counts.data
                    }
                    if let waiting = held {
                        held = nil
                        forward(datagram)
                        forward(waiting)
                        counts.withLock { $0.displaced += 1 }
                    } else if number % 100 == 7 {
                        counts.withLock { $0.dropped += 1 }
                    } else if number % 50 == 13 {
                        forward(datagram)
                        forward(datagram)
                        counts.withLock { $0.doubled += 1 }
                    } else if number % 20 == 3 {
                        held = datagram
                    } else {
                        forward(datagram)
                    }
                }
                if requests[1].revents != 0 {
                    let got = recv(back, &bytes, bytes.count, 0)
                    guard got > 0, !client.isEmpty else { continue }
                    client.withUnsafeBytes { raw in
                        _ = raw.withMemoryRebound(to: sockaddr.self) {
                            sendto(front, bytes, got, 0, $0.baseAddress!, socklen_t(raw.count))
                        }
                    }
                }
            }
            close(front)
            close(back)
            ended.signal()
        }
    }

    func stop() -> Counts {
        isStopping.store(true, ordering: .relaxed)
        ended.wait()
        return counts.withLock { $0 }
    }
}

@Suite("Real rate tests", .tags(.real), .serialized)
struct RealUDPTests {
    private func plan(_ change: (inout TestPlan) -> Void = { _ in }) -> TestPlan {
        var plan = TestPlan()
        plan.duration = 300_000_000
        plan.interval = 100_000_000
        plan.rate = 50_000_000
        change(&plan)
        return plan
    }

    private func port(_ address: String) -> UInt16 { UInt16(address.split(separator: ":").last ?? "") ?? 0 }

    @Test(
        "sent = received + every cause in all and in every interval, each way and both",
        arguments: TestPlan.Direction.allCases,
        [1, 3]
    )
    func accounts(direction: TestPlan.Direction, flows: Int) throws {
        let server = try LocalServer()
        defer { server.stop() }
        let plan = plan {
            $0.direction = direction
            $0.flows = flows
        }
        let result = try TestClient(server: server.server.address).run(plan)
        #expect(result.ended == nil)
        #expect(result.clock.isShared)
        #expect(result.directions.count == (direction == .both ? 2 : 1))
        for direction in result.directions {
            #expect(direction.isComplete)
            #expect(direction.flows.count == flows)
            let account = direction.account(of: plan)
            #expect(account.sent > 0)
            #expect(account.pathLost == 0, "loopback loses nothing on the way")
            #expect(account.sent == account.received + account.socketDropped + account.corrupted + account.late)
            let total = direction.total(of: plan)
            let rows = direction.intervals(of: plan)
            #expect(rows.count == 3)
            #expect(rows.reduce(0) { $0 + $1.sent } == total.sent)
            #expect(rows.reduce(0) { $0 + $1.received } == total.received)
            for row in rows { #expect(row.lost == row.sent - row.received && row.lost >= 0) }
            #expect(direction.delay.least >= 0)
        }
    }

    @Test(
        "what a small buffer drops is told from what the path loses",
        arguments: [(1, false), (1, true), (20, true)]
    )
    func smallBuffer(segments: Int, gro: Bool) throws {
        let server = try LocalServer()
        defer { server.stop() }
        for _ in 0..<3 {
            let plan = plan {
                $0.rate = nil
                $0.receiveBuffer = segments == 1 ? 4_096 : 60_000
                $0.segments = segments
                $0.gro = gro
            }
            let direction = try #require(try TestClient(server: server.server.address).run(plan).directions.first)
            let account = direction.account(of: plan)
            #expect(account.socketDropped > 0)
            #expect(account.pathLost == 0)
            #expect(account.sent == account.received + account.socketDropped)
        }
    }

    @Test("losses, copies and displacements of a relay are counted to the last one")
    func relay() throws {
        let server = try LocalServer()
        defer { server.stop() }
        for _ in 0..<longRuns(2) {
            let relay = try Relay(to: port(server.server.address))
            var client = TestClient(server: server.server.address)
            client.datagramsVia = "127.0.0.1:\(relay.port)"
            let plan = plan { $0.rate = 20_000_000 }
            let result = try client.run(plan)
            let counts = relay.stop()
            let direction = try #require(result.directions.first)
            let account = direction.account(of: plan)
            #expect(account.sent == counts.data)
            #expect(account.pathLost == counts.dropped)
            #expect(account.duplicated == counts.doubled)
            #expect(account.reordered == counts.displaced)
            #expect(account.sent == account.received + account.pathLost)
            #expect(direction.flows[0].receiver?.reorderingExtent.greatest == 1)
        }
    }

    @Test("several tests at once, one more than the limit is told so, and a wrong secret too")
    func manyAndSecrets() throws {
        let server = try LocalServer(secret: "open sesame", limit: 2)
        defer { server.stop() }
        var client = TestClient(server: server.server.address)
        #expect(throws: ControlFault.self) { try client.run(plan()) }
        client.secret = "wrong"
        #expect(throws: ControlFault("the secret is wrong")) { try client.run(plan()) }
        client.secret = "open sesame"
        let results = Mutex<[Result<TestResult, ControlFault>]>([])
        let group = DispatchGroup()
        let longer = plan { $0.duration = 600_000_000 }
        let made = client
        for _ in 0..<2 {
            group.enter()
            Thread.detachNewThread {
                let result = Result { () throws(ControlFault) in try made.run(longer) }
                results.withLock { $0.append(result) }
                group.leave()
            }
        }
        group.wait()
        for result in results.withLock({ $0 }) {
            let result = try result.get()
            #expect(result.ended == nil && result.directions[0].isComplete)
        }
    }

    @Test("an address gets a cookie and nothing else, no more than it sent, until it has returned one")
    func cookies() throws {
        let server = try LocalServer()
        defer { server.stop() }
        let descriptor = try RawFlow.connected(to: server.server.address)
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 4_096)
        func answer(_ datagram: [UInt8], within milliseconds: CInt) -> [UInt8]? {
            _ = datagram.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, 0) }
            var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&request, 1, milliseconds) > 0 else { return nil }
            let got = recv(descriptor, &bytes, bytes.count, 0)
            return got > 0 ? Array(bytes[..<got]) : nil
        }
        let token = [UInt8](repeating: 7, count: 16)
        // Too short to be answered, and not ours.
        #expect(
            answer(Array(FlowHello(flow: 1, token: token).datagram(byteCount: 64, sendTime: 0)[..<63]), within: 50)
                == nil
        )
        #expect(answer([UInt8](repeating: 1, count: 500), within: 50) == nil)
        let cookieDatagram = try #require(
            answer(FlowHello(flow: 1, token: token).datagram(byteCount: 64, sendTime: 0), within: 2_000)
        )
        #expect(cookieDatagram.count == 48)
        let brought = FlowHello.cookie(in: cookieDatagram.span.bytes, for: 1)
        let cookie = try #require(brought)
        // A cookie of a session that nobody opened over TCP opens nothing.
        let again = FlowHello(flow: 1, token: token, cookie: cookie).datagram(byteCount: 1_200, sendTime: 0)
        #expect(answer(again, within: 100) == nil)
    }

    @Test("a client that goes away in the middle costs the server nothing")
    func clientKilled() throws {
        let scratch = try Scratch()
        let server = try LocalServer()
        defer { server.stop() }
        let program = try Program(
            ["udp", "test", server.server.address, "--duration", "30s", "--rate", "10Mbit/s", "--direction", "both"],
            in: scratch.path
        )
        // The second line of its progress comes a second after the first: datagrams go both ways.
        _ = program.errorLine()
        _ = program.errorLine()
        program.signal(SIGKILL)
        _ = program.end()
        let result = try TestClient(server: server.server.address).run(plan())
        #expect(result.ended == nil && result.directions[0].isComplete)
    }

    @Test("a server that goes away ends the test at once, with what is known", arguments: [SIGKILL, SIGTERM])
    func serverGone(signal: CInt) throws {
        let scratch = try Scratch()
        let server = try Program(["udp", "serve", "--listen", "127.0.0.1:0", "--quiet"], in: scratch.path)
        let address = String(server.line().dropFirst(4))
        let client = TestClient(server: address)
        var hasKilled = false
        let began = ContinuousClock.now
        let result = try client.run(
            plan { $0.duration = 60_000_000_000 },
            look: { progress in
                guard progress.sent > 1_000, !hasKilled else { return }
                hasKilled = true
                server.signal(signal)
            }
        )
        _ = server.end()
        #expect(began.duration(to: .now) < .seconds(30))
        #expect(result.ended != nil)
        #expect(!result.directions[0].isComplete)
        #expect(result.directions[0].account(of: plan()).sent > 1_000)
    }

    @Test("the command: JSON, CSV, exit status, and what is wrong with an option")
    func command() throws {
        let scratch = try Scratch()
        let server = try LocalServer()
        defer { server.stop() }
        let (status, output, errors) = try Program(
            [
                "udp", "test", server.server.address, "--duration", "200ms", "--interval", "100ms", "--rate", "5kpps",
                "--json", "--quiet", "--csv", "rows.csv",
            ],
            in: scratch.path
        ).end()
        #expect(status == 0, "\(errors)")
        let json = try #require(JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any])
        let direction = try #require((json["directions"] as? [[String: Any]])?.first)
        let account = try #require(direction["account"] as? [String: Int])
        #expect(account["sent"] == account["received"])
        let rows = String(decoding: scratch.contents("rows.csv") ?? [], as: UTF8.self).split(separator: "\n")
        #expect(rows.count == 3)
        let wrong = try Program(["udp", "test", "127.0.0.1:1", "--size", "31"], in: scratch.path).end()
        #expect(wrong.status == 64)
        #expect(wrong.errors.contains("size must be 32 to 65507, found 31"))
        let nobody = try Program(["udp", "test", "127.0.0.1:1"], in: scratch.path).end()
        #expect(nobody.status == 1)
        #expect(nobody.errors.contains("cannot reach 127.0.0.1:1 over TCP"))
        let open = try Program(["udp", "serve", "--listen", "0.0.0.0:0"], in: scratch.path).end()
        #expect(open.status == 1)
        #expect(open.errors.contains("not a loopback address"))
    }
}

/// So many in CI, and twenty where `TRIBUTARY_LONG` is set: what an issue asks for is shown once, not at every push.
func longRuns(_ usual: Int) -> Int { ProcessInfo.processInfo.environment["TRIBUTARY_LONG"] == nil ? usual : 20 }
