import CBatchIO
import Delivery
public import Measures
import NetworkStages
import PipelineCore
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Runs one rate test with a server.
public struct TestClient: Sendable {
    /// `HOST:PORT` of the server.
    public var server: String
    /// Where datagrams go, if not to the server's own address: a relay on the way.
    public var datagramsVia: String?
    public var secret: String?
    /// Whether to make datagrams as small as the path's MTU asks for, instead of failing.
    public var discoversMTU = false
    public var pin: Int?

    public init(server: String) { self.server = server }

    /// What goes on, for people to look at, about ten times a second.
    public struct Progress: Sendable {
        /// Nanoseconds since the test began, warm-up included.
        public var elapsed: Int64
        public var sent: Int64
        public var received: Int64
        /// What the receivers last said of the flows; of both directions, if there are two.
        public var status: [FlowStatus]
    }

    /// Runs a test to its end. Blocks the calling thread.
    ///
    /// A test that ends early is no error: its result says why and holds what is known.
    /// - Parameters:
    ///   - isCancelled: Asked every few milliseconds.
    ///   - steer: Called with every status of the receiving ends; its answer is the new UDP payload rate of the sender.
    ///   - look: Called with progress.
    /// - Throws: When the test did not begin.
    public func run(
        _ wanted: TestPlan,
        isCancelled: () -> Bool = { false },
        steer: ((Progress) -> UInt64?)? = nil,
        look: (Progress) -> Void = { _ in }
    ) throws(ControlFault) -> TestResult {
        var plan = wanted
        guard plan.problems.isEmpty else { throw ControlFault(plan.problems.joined(separator: "; ")) }
        let (descriptor, address) = try connectControl()
        let connection = ControlConnection(descriptor, limit: ControlMessage.lineLimit)
        if plan.size + UDPSend.overhead(address.family) > 1_280 || discoversMTU { try fit(&plan, to: address) }
        let greeting = try connection.expect(.greeting, within: 10_000_000_000)
        guard greeting.version == 1 else {
            throw ControlFault("the server speaks another version of the test protocol")
        }
        var hello = ControlMessage(.hello)
        hello.version = 1
        hello.plan = plan
        hello.host = hostIdentity()
        if greeting.needsSecret == true {
            guard let secret else { throw ControlFault("the server asks for a secret: --secret-file FILE") }
            guard let nonce = bytes(hexadecimal: greeting.nonce ?? ""), nonce.count == 16 else {
                throw ControlFault("the server's nonce is none")
            }
            hello.proof = proof(of: secret, nonce: nonce)
        }
        try connection.send(hello)
        let accepted = try connection.expect(.accepted, within: 10_000_000_000)
        guard let token = bytes(hexadecimal: accepted.token ?? ""), token.count == FlowHello.tokenByteCount,
            let flows = accepted.flows, flows.count == plan.flows, Set(flows).count == flows.count
        else { throw ControlFault("the server's answer names no token and no flows") }
        var clock = ClockRelation(isShared: accepted.host == hello.host && hello.host != "")
        if !clock.isShared { try compareClocks(connection, &clock) }
        let sockets = try openFlows(connection, plan, flows, token, address)
        var start = ControlMessage(.start)
        start.begin = realNow() + 100_000_000
        start.offset = clock.offset
        let reply: ControlMessage
        do throws(ControlFault) {
            try connection.send(start)
            reply = try connection.expect(.start, within: 10_000_000_000)
            guard let theirs = reply.begin, abs(theirs) < 1 << 61 else {
                throw ControlFault("a start says when it begins")
            }
        } catch {
            for socket in sockets { Libc.close(socket) }
            throw error
        }
        let end = try TestEnd(
            plan: plan,
            connection: connection,
            flows: flows,
            sockets: sockets,
            sends: plan.sendsUp,
            receives: plan.sendsDown,
            shift: -clock.offset,
            begin: (start.begin ?? 0, reply.begin ?? 0),
            pin: pin
        )
        var ended: String?
        var nextLook: Int64 = 0
        var latest: [FlowStatus] = []
        do throws(ControlFault) {
            try end.run(isCancelled: isCancelled) { view in
                let news = view.remote + view.local
                if !news.isEmpty { latest = news }
                let progress = Progress(elapsed: view.elapsed, sent: view.sent, received: view.received, status: latest)
                if view.elapsed >= nextLook {
                    nextLook = view.elapsed + 100_000_000
                    look(progress)
                }
                return news.isEmpty ? nil : steer?(progress)
            }
        } catch {
            ended = error.description
        }
        let results = end.results
        var directions: [DirectionResult] = []
        if plan.sendsUp { directions.append(DirectionResult(.up, flows: results.sending)) }
        if plan.sendsDown { directions.append(DirectionResult(.down, flows: results.receiving)) }
        return TestResult(
            plan: plan,
            directions: directions,
            clock: clock,
            ended: end.fault ?? ended,
            warnings: warnings(directions, wanted, plan)
        )
    }

    /// Bytes of the IP and UDP headers of a datagram to the server.
    public func packetOverhead() throws(ControlFault) -> Int {
        do throws(StageError) {
            return UDPSend.overhead(try SocketAddress.resolve(server, stream: true, passive: false)[0].family)
        } catch {
            throw ControlFault(error.message)
        }
    }

    private func connectControl() throws(ControlFault) -> (CInt, SocketAddress) {
        do throws(StageError) {
            var last: CInt = 0
            let addresses = try SocketAddress.resolve(server, stream: true, passive: false)
            for address in addresses {
                let descriptor = try Socket.open(address.family, stream: true)
                let status = unsafe address.withPointer { unsafe connect(descriptor, $0, $1) }
                if status != 0, errno == EINPROGRESS {
                    var request = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    last = unsafe poll(&request, 1, 5_000) > 0 ? Socket.pendingError(of: descriptor) : ETIMEDOUT
                } else {
                    last = status == 0 ? 0 : errno
                }
                if last == 0 { return (descriptor, address) }
                Libc.close(descriptor)
            }
            throw StageError(.systemCall, "cannot reach \(addresses[0]) over TCP: \(Socket.message(last))")
        } catch {
            throw ControlFault(error.message)
        }
    }

    /// The offset of the server's clock, by the shortest of eight round trips.
    private func compareClocks(_ connection: ControlConnection, _ clock: inout ClockRelation) throws(ControlFault) {
        var shortest = Int64.max
        for _ in 0..<8 {
            var question = ControlMessage(.clock)
            let asked = realNow()
            question.clientTime = asked
            try connection.send(question)
            let answer = try connection.expect(.clock, within: 5_000_000_000)
            let answered = realNow()
            guard let theirs = answer.serverTime, abs(theirs) < 1 << 61 else {
                throw ControlFault("a clock that tells no time")
            }
            guard answered - asked < shortest else { continue }
            shortest = answered - asked
            clock.offset = theirs - (asked + answered) / 2
            clock.error = (shortest + 1) / 2
        }
    }

    // MARK: Flows

    private func datagramAddress(_ server: SocketAddress) throws(ControlFault) -> SocketAddress {
        guard let datagramsVia else { return server }
        do throws(StageError) {
            return try SocketAddress.resolve(datagramsVia, stream: false, passive: false)[0]
        } catch {
            throw ControlFault(error.message)
        }
    }

    private func openSocket(_ address: SocketAddress, _ plan: TestPlan) throws(ControlFault) -> CInt {
        do throws(StageError) {
            let descriptor = try Socket.open(address.family, stream: false)
            guard unsafe address.withPointer({ unsafe connect(descriptor, $0, $1) }) == 0 else {
                let number = errno
                Libc.close(descriptor)
                throw StageError(.systemCall, "cannot reach \(address) over UDP: \(Socket.message(number))")
            }
            _ = cbatchio_configure(descriptor, address.family, UInt32(CBATCHIO_DONT_FRAGMENT))
            _ = cbatchio_set_receive_buffer(descriptor, CInt(clamping: plan.receiveBuffer))
            return descriptor
        } catch {
            throw ControlFault(error.message)
        }
    }

    /// Checks that the way out carries datagrams of the plan's size, or makes them smaller.
    private func fit(_ plan: inout TestPlan, to server: SocketAddress) throws(ControlFault) {
        let address = try datagramAddress(server)
        let descriptor = try openSocket(address, plan)
        defer { Libc.close(descriptor) }
        let mtu = Int(cbatchio_path_mtu(descriptor, address.family))
        guard mtu > 0, plan.size + UDPSend.overhead(address.family) > mtu else { return }
        try shrink(&plan, toMTU: mtu, address.family)
    }

    private func shrink(_ plan: inout TestPlan, toMTU mtu: Int, _ family: CInt) throws(ControlFault) {
        let room = mtu - UDPSend.overhead(family)
        guard discoversMTU, room >= 64 else {
            throw ControlFault(
                "datagrams of \(plan.size) bytes do not fit the path: its MTU is \(mtu), which leaves \(room) bytes. "
                    + "Use --size \(room), or --pmtud to have it found"
            )
        }
        plan.size = room
    }

    /// Opens a socket for each flow and shows the server that its address is this client's.
    private func openFlows(
        _ connection: ControlConnection,
        _ plan: TestPlan,
        _ flows: [UInt32],
        _ token: [UInt8],
        _ server: SocketAddress
    ) throws(ControlFault) -> [CInt] {
        let address = try datagramAddress(server)
        var sockets: [CInt] = []
        do throws(ControlFault) {
            for _ in flows { sockets.append(try openSocket(address, plan)) }
            var missing = Set(flows)
            var hellos = flows.map { FlowHello(flow: $0, token: token) }
            let deadline = monotonicNow() + 5_000_000_000
            var nextHello: Int64 = 0
            var trouble: CInt = 0
            while !missing.isEmpty {
                let now = monotonicNow()
                guard now < deadline else { throw ControlFault(silence(plan, trouble)) }
                if now >= nextHello {
                    nextHello = now + 100_000_000
                    for (index, hello) in hellos.enumerated() where missing.contains(hello.flow) {
                        if let number = send(hello, plan, sockets[index]) {
                            trouble = number
                            if number == EMSGSIZE {
                                let mtu = Int(cbatchio_path_mtu(sockets[index], address.family))
                                throw ControlFault(
                                    "datagrams of \(plan.size) bytes do not fit the path: its MTU is \(mtu), which "
                                        + "leaves \(mtu - UDPSend.overhead(address.family)) bytes for --size"
                                )
                            }
                        }
                    }
                }
                for (index, socket) in sockets.enumerated() {
                    while let cookie = receiveCookie(socket, flows[index], &trouble) {
                        guard hellos[index].cookie != cookie else { continue }
                        hellos[index].cookie = cookie
                        if let number = send(hellos[index], plan, socket) { trouble = number }
                    }
                }
                if let message = try connection.receive(within: 2_000_000) {
                    switch message.kind {
                    case .flow: if let flow = message.flow { missing.remove(flow) }
                    case .error, .refused: throw ControlFault(message.reason ?? "the server refused without saying why")
                    default: throw ControlFault("expected 'flow' of the server, found '\(message.kind.rawValue)'")
                    }
                }
            }
            return sockets
        } catch {
            for socket in sockets { Libc.close(socket) }
            throw error
        }
    }

    private func silence(_ plan: TestPlan, _ trouble: CInt) -> String {
        let why = trouble == 0 ? "" : " (\(Socket.message(trouble)))"
        return
            "the server's UDP port does not answer datagrams of \(max(plan.size, FlowHello.leastByteCount)) bytes within 5 s"
            + "\(why): a firewall, or a path that drops what is longer than its MTU; try a smaller --size"
    }

    private func send(_ hello: FlowHello, _ plan: TestPlan, _ socket: CInt) -> CInt? {
        let datagram = hello.datagram(byteCount: plan.size, sendTime: Socket.realtimeNanoseconds())
        let sent = unsafe datagram.withUnsafeBytes {
            unsafe Libc.send(socket, $0.baseAddress, $0.count, CInt(MSG_DONTWAIT))
        }
        return sent < 0 ? errno : nil
    }

    private func receiveCookie(_ socket: CInt, _ flow: UInt32, _ trouble: inout CInt) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: 2_048)
        for _ in 0..<16 {
            let got = unsafe bytes.withUnsafeMutableBytes {
                unsafe recv(socket, $0.baseAddress, $0.count, CInt(MSG_DONTWAIT))
            }
            guard got >= 0 else {
                if errno != EAGAIN { trouble = errno }
                return nil
            }
            if let cookie = unsafe FlowHello.cookie(in: bytes.span.bytes.extracting(..<got), for: flow) {
                return cookie
            }
        }
        return nil
    }

    // MARK: What people should know

    private func warnings(_ directions: [DirectionResult], _ wanted: TestPlan, _ plan: TestPlan) -> [String] {
        var warnings: [String] = []
        if plan.size != wanted.size {
            warnings.append("datagrams are \(plan.size) bytes, not \(wanted.size): that is what the path's MTU leaves")
        }
        for direction in directions {
            let name = direction.direction == .up ? "the server" : "this machine"
            // The kernel grants twice what is asked for, for its bookkeeping.
            if let got = direction.flows.compactMap(\.socket?.receiveBuffer).filter({ $0 > 0 }).min(),
                got < 2 * plan.receiveBuffer
            {
                warnings.append(
                    "\(name) granted a receive buffer of \(got / 2) bytes in place of \(plan.receiveBuffer): "
                        + "sysctl -w net.core.rmem_max=\(plan.receiveBuffer) there, or run as root"
                )
            }
            if direction.flows.contains(where: { $0.sender?.segmentationRefused == true }) {
                warnings.append("the kernel refused to cut super-packets (UDP_SEGMENT): datagrams were sent one by one")
            }
            if direction.flows.contains(where: { ($0.socket?.truncated ?? 0) > 0 }) {
                warnings.append("datagrams longer than the room for them were cut")
            }
        }
        return warnings
    }
}
