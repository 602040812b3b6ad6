import CBatchIO
import Crypto
import Delivery
import NetworkStages
public import PipelineCore
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Serves rate tests: a TCP port for control and the same UDP port for all flows. One thread accepts, one runs each test.
///
/// It sends at no address that has not returned a cookie which was sent there, and then only for a test whose TCP client
/// repeated the session's token from that address. Without a secret it tests with anybody, so it listens elsewhere than at
/// loopback only when told so.
public final class TestServer: Sendable {
    public struct Options: Sendable {
        /// `HOST:PORT`; port 0 takes a free one.
        public var listen = "127.0.0.1:5201"
        /// What clients must know.
        public var secret: String?
        /// Whether to listen beyond loopback without a secret.
        public var allowsAnybody = false
        /// Tests at once.
        public var limit = 16
        public var pin: Int?
        public init() {}
    }

    /// A session that waits for its flows.
    private final class Waiting: Sendable {
        let flows: [UInt32]
        let receiveBuffer: Int
        let sockets = Mutex<[UInt32: CInt]>([:])
        init(flows: [UInt32], receiveBuffer: Int) {
            self.flows = flows
            self.receiveBuffer = receiveBuffer
        }
    }

    private let options: Options
    private let listener: CInt
    private let datagrams: CInt
    /// Where it listens.
    public let address: String
    private let local: SocketAddress
    private let cookies = ServerCookies()
    private let waiting = Mutex<[[UInt8]: Waiting]>([:])
    private let active = Mutex(0)
    private let isStopping = Atomic<Bool>(false)
    private let log: @Sendable (String) -> Void

    /// Opens both sockets.
    ///
    /// - Parameter log: Told in a sentence of each test that begins and ends.
    public init(options: Options, log: @escaping @Sendable (String) -> Void = { _ in }) throws(StageError) {
        self.options = options
        self.log = log
        let wanted = try SocketAddress.resolve(options.listen, stream: true, passive: true)[0]
        guard wanted.isLoopback || options.secret != nil || options.allowsAnybody else {
            throw StageError(
                .invalidInput,
                "\(wanted) is not a loopback address: anybody could have this machine send at full rate. "
                    + "Give a secret (--secret-file), or say --allow-anybody"
            )
        }
        let (listener, bound) = try Socket.bound(to: options.listen, stream: true)
        let opened: (descriptor: CInt, address: SocketAddress)
        do throws(StageError) {
            opened = try Socket.bound(to: "\(bound)", stream: false, sharesPort: true)
        } catch {
            Libc.close(listener)
            throw error
        }
        self.listener = listener
        datagrams = opened.descriptor
        local = bound
        address = "\(bound)"
    }

    deinit {
        Libc.close(listener)
        Libc.close(datagrams)
    }

    /// Ends ``run`` and all tests, from any thread.
    public func stop() { isStopping.store(true, ordering: .releasing) }

    /// Serves until ``stop``. Blocks the calling thread.
    public func run() {
        while !isStopping.load(ordering: .acquiring) {
            var requests = [
                pollfd(fd: listener, events: Int16(POLLIN), revents: 0),
                pollfd(fd: datagrams, events: Int16(POLLIN), revents: 0),
            ]
            guard unsafe poll(&requests, 2, 50) > 0 else { continue }
            if requests[1].revents != 0 { answerDatagrams() }
            if requests[0].revents != 0 { accept() }
        }
        while active.withLock({ $0 }) > 0 { Socket.pause(nanoseconds: 5_000_000) }
    }

    private func accept() {
        let descriptor = unsafe Libc.accept(listener, nil, nil)
        guard descriptor >= 0 else {
            // Without a descriptor to spare the queue stays as it is: no reason to spin.
            if errno == EMFILE || errno == ENFILE { Socket.pause(nanoseconds: 20_000_000) }
            return
        }
        Socket.prepare(descriptor)
        // One more than the limit, to say so; beyond that a connection costs nothing.
        let count = active.withLock { count -> Int in
            count += 1
            return count
        }
        func release() { active.withLock { $0 -= 1 } }
        guard count <= options.limit * 2 + 8 else {
            Libc.close(descriptor)
            return release()
        }
        do throws(StageError) {
            try BackgroundThread.start { [self] in
                serve(ControlConnection(descriptor, limit: ControlMessage.requestLimit), isBusy: count > options.limit)
                active.withLock { $0 -= 1 }
            }
        } catch {
            Libc.close(descriptor)
            release()
        }
    }

    /// One client, from its greeting to its end.
    private func serve(_ connection: ControlConnection, isBusy: Bool) {
        do throws(ControlFault) {
            if isBusy { throw ControlFault("the server runs \(options.limit) tests already") }
            try hold(connection)
        } catch {
            var message = ControlMessage(.error)
            message.reason = error.description
            try? connection.send(message)
            log("a test ended early: \(error)")
        }
    }

    private func hold(_ connection: ControlConnection) throws(ControlFault) {
        var random = SystemRandomNumberGenerator()
        func randomBytes(_ count: Int) -> [UInt8] {
            (0..<count).map { _ in UInt8.random(in: 0 ... .max, using: &random) }
        }
        let nonce = randomBytes(16)
        var greeting = ControlMessage(.greeting)
        greeting.version = 1
        greeting.nonce = hexadecimal(nonce)
        greeting.needsSecret = options.secret != nil
        try connection.send(greeting)
        let hello = try connection.expect(.hello, within: 10_000_000_000)
        guard hello.version == 1 else { throw ControlFault("this server speaks version 1 of the test protocol") }
        guard let plan = hello.plan else { throw ControlFault("a hello brings a plan") }
        if let secret = options.secret, !isProof(hello.proof ?? "", of: secret, nonce: nonce) {
            throw ControlFault("the secret is wrong")
        }
        let token = randomBytes(FlowHello.tokenByteCount)
        let flows = (0..<plan.flows).map { _ in UInt32.random(in: 1 ... .max, using: &random) }
        guard Set(flows).count == flows.count else { throw ControlFault("try again: two flows drew the same number") }
        let session = Waiting(flows: flows, receiveBuffer: plan.receiveBuffer)
        waiting.withLock { $0[token] = session }
        defer {
            waiting.withLock { $0[token] = nil }
            for socket in session.sockets.withLock({ Array($0.values) }) { Libc.close(socket) }
        }
        var accepted = ControlMessage(.accepted)
        accepted.token = hexadecimal(token)
        accepted.flows = flows
        accepted.host = hostIdentity()
        try connection.send(accepted)
        log("a test of \(plan.flows) flows, \(plan.direction.rawValue), begins")
        let start = try waitForFlows(connection, session)
        let isShared = hello.host == accepted.host
        // By the client's own figure: its clock relative to this one's.
        let shift = isShared ? 0 : min(max(start.offset ?? 0, -(1 << 61)), 1 << 61)
        guard let theirs = start.begin, abs(theirs) < 1 << 61 else { throw ControlFault("a start says when it begins") }
        let sockets = session.sockets.withLock { held -> [CInt] in
            defer { held.removeAll() }
            return flows.map { held[$0] ?? -1 }
        }
        let begin = (own: realNow() + 100_000_000, other: theirs)
        let end = try TestEnd(
            plan: plan,
            connection: connection,
            flows: flows,
            sockets: sockets,
            sends: plan.sendsDown,
            receives: plan.sendsUp,
            shift: shift,
            begin: begin,
            pin: options.pin
        )
        var reply = ControlMessage(.start)
        reply.begin = begin.own
        do throws(ControlFault) {
            try connection.send(reply)
        } catch {
            end.stop()
            throw error
        }
        // The reports of a long test are longer than a stranger's hello may be.
        connection.limit = ControlMessage.lineLimit
        try end.run(isCancelled: { isStopping.load(ordering: .relaxed) })
        log("a test has ended")
        // The client closes when it has read all.
        _ = try? connection.receive(within: 5_000_000_000)
    }

    /// Answers clocks and tells of flows until the client starts.
    private func waitForFlows(_ connection: ControlConnection, _ session: Waiting) throws(ControlFault)
        -> ControlMessage
    {
        let deadline = monotonicNow() + 60_000_000_000
        var told: Set<UInt32> = []
        while monotonicNow() < deadline, !isStopping.load(ordering: .relaxed) {
            for flow in session.sockets.withLock({ Array($0.keys) }) where told.insert(flow).inserted {
                var message = ControlMessage(.flow)
                message.flow = flow
                try connection.send(message)
            }
            guard let message = try connection.receive(within: 5_000_000) else { continue }
            switch message.kind {
            case .clock:
                var answer = ControlMessage(.clock)
                answer.clientTime = message.clientTime
                answer.serverTime = realNow()
                try connection.send(answer)
            case .start:
                guard told.count == session.flows.count else {
                    throw ControlFault("a start before all flows are there")
                }
                return message
            default: throw ControlFault("the client said '\(message.kind.rawValue)' before the test began")
            }
        }
        throw ControlFault("the client did not begin within 60 s")
    }

    /// Answers HELLOs: by a cookie, or by opening the flow.
    private func answerDatagrams() {
        var bytes = [UInt8](repeating: 0, count: 65_536)
        for _ in 0..<64 {
            var peer = [UInt8](repeating: 0, count: 128)
            var length = socklen_t(peer.count)
            let got = unsafe peer.withUnsafeMutableBytes { raw in
                unsafe raw.withMemoryRebound(to: sockaddr.self) { address in
                    unsafe bytes.withUnsafeMutableBytes {
                        unsafe recvfrom(
                            datagrams,
                            $0.baseAddress,
                            $0.count,
                            CInt(MSG_DONTWAIT),
                            address.baseAddress!,
                            &length
                        )
                    }
                }
            }
            guard got >= 0 else {
                if errno == EINTR { continue }
                return
            }
            guard let from = SocketAddress(bytes: Array(peer.prefix(Int(length)))),
                let hello = unsafe FlowHello(bytes.span.bytes.extracting(..<got))
            else { continue }
            let now = Timestamp(nanoseconds: monotonicNow())
            if cookies.isValid(hello.cookie, for: from.bytes, at: now) {
                open(hello, from)
            } else {
                let answer = FlowHello.cookieDatagram(
                    cookies.cookie(for: from.bytes, at: now),
                    flow: hello.flow,
                    sendTime: Socket.realtimeNanoseconds()
                )
                _ = unsafe from.withPointer { address, length in
                    unsafe answer.withUnsafeBytes {
                        unsafe sendto(datagrams, $0.baseAddress, $0.count, CInt(MSG_DONTWAIT), address, length)
                    }
                }
            }
        }
    }

    /// Opens the socket of a flow, connected to where its HELLO came from.
    private func open(_ hello: FlowHello, _ from: SocketAddress) {
        guard let session = waiting.withLock({ $0[hello.token] }), session.flows.contains(hello.flow) else { return }
        session.sockets.withLock { held in
            guard held[hello.flow] == nil,
                let (descriptor, _) = try? Socket.bound(to: address, stream: false, sharesPort: true)
            else { return }
            guard unsafe from.withPointer({ unsafe connect(descriptor, $0, $1) }) == 0 else {
                Libc.close(descriptor)
                return
            }
            _ = cbatchio_configure(descriptor, from.family, UInt32(CBATCHIO_DONT_FRAGMENT))
            _ = cbatchio_set_receive_buffer(descriptor, CInt(clamping: session.receiveBuffer))
            held[hello.flow] = descriptor
        }
    }
}

/// Whether `proof` shows that its maker knows the secret.
func isProof(_ proof: String, of secret: String, nonce: [UInt8]) -> Bool {
    guard let bytes = bytes(hexadecimal: proof) else { return false }
    let key = SymmetricKey(data: Array(secret.utf8))
    return HMAC<SHA256>.isValidAuthenticationCode(bytes, authenticating: nonce, using: key)
}

func proof(of secret: String, nonce: [UInt8]) -> String {
    hexadecimal(Array(HMAC<SHA256>.authenticationCode(for: nonce, using: SymmetricKey(data: Array(secret.utf8)))))
}

/// Lower-case hexadecimal, and back.
func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

func bytes(hexadecimal text: String) -> [UInt8]? {
    let digits = Array(text.utf8)
    guard digits.count % 2 == 0, digits.count <= 256 else { return nil }
    var bytes: [UInt8] = []
    for index in stride(from: 0, to: digits.count, by: 2) {
        guard let byte = UInt8(String(decoding: digits[index..<index + 2], as: UTF8.self), radix: 16) else {
            return nil
        }
        bytes.append(byte)
    }
    return bytes
}
