import CBatchIO
import Delivery
public import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Serves the files of a folder over UDP: the capture of a server's pipeline.
///
/// An address gets nothing but a cookie until it has returned one, and never more than three times what it sent. Then a
/// flow is an address and a flow id; requests are answered in order, flows take turns. What is lost the client asks for
/// again. The rate is the `pacer`'s.
public final class UDPServe: Capture, Summarizing {
    public static let typeName = "udp_serve"

    public struct Options: StageOptions {
        public var server: ServerOptions
        /// Payload bytes of a DATA datagram; with its header and those of UDP and IP it has to fit the path.
        public var payload: ByteCount
        /// How long a flow that says nothing is remembered.
        public var idle: Duration

        public init(from reader: inout OptionReader) {
            server = ServerOptions(from: &reader)
            payload = reader.read("payload", default: ByteCount(1_168), in: ByteCount(64)...ByteCount(8_900))
            idle = reader.read("idle", default: .seconds(60), in: .seconds(1)...(.seconds(86_400)))
        }
    }

    public static func demands(of options: Options) -> StageDemands { options.server.demands("udp") }

    private let options: Options
    private let context: StageContext
    private let holder: EndpointHolder
    private var endpoint: UDPEndpoint?

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
        holder = EndpointHolder.of(context)
        holder.endpoint = DeferredEndpoint()
    }

    public func start(at now: Timestamp) throws(StageError) {
        let store = try ObjectStore(folder: context.resolve(options.server.directory))
        let (descriptor, address) = try Socket.bound(to: options.server.listen, stream: false)
        let endpoint = try UDPEndpoint(
            socket: descriptor,
            store: store,
            options: options,
            descriptors: context.descriptors
        )
        self.endpoint = endpoint
        holder.endpoint = endpoint
        context.addresses.post("\(address)", for: "\(context.pipeline)/udp")
    }

    public func capture(into output: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        endpoint?.turn(into: &output, at: now) ?? .whenFed
    }

    public func finish(at now: Timestamp) throws(StageError) { endpoint?.close() }

    public func summary() -> [(key: String, value: SummaryValue)] { endpoint?.summary ?? [] }
}

/// The socket of a server and its flows.
@safe
private final class UDPEndpoint: ServerEndpoint {
    private struct FlowKey: Hashable {
        var address: SocketAddress
        var flow: UInt32
    }
    private final class Flow {
        let id: UInt32
        let key: FlowKey
        let object: ServedObject
        var isOfferWithDigests = false
        var sequence: UInt64 = 0
        var requests = FlowQueue()
        var lastHeard: Timestamp
        var isInTurn = false

        init(id: UInt32, key: FlowKey, object: ServedObject, at now: Timestamp) {
            self.id = id
            self.key = key
            self.object = object
            lastHeard = now
        }
    }

    /// Every datagram received is in exactly one of the first group.
    private struct Counters {
        var hello: Int64 = 0
        var requests: Int64 = 0
        var cancels: Int64 = 0
        var blocks: Int64 = 0
        var pings: Int64 = 0
        var byes: Int64 = 0
        var unverified: Int64 = 0
        var malformed: Int64 = 0
        var unknownTypes: Int64 = 0
        var unknownFlows: Int64 = 0
        var truncated: Int64 = 0

        var cookies: Int64 = 0
        var turnedAway: Int64 = 0
        var badRanges: Int64 = 0
        var busy: Int64 = 0
        var expired: Int64 = 0
        var fileErrors: Int64 = 0
        var sentDatagrams: Int64 = 0
        var sentByteCount: UInt64 = 0
        var sendErrors: Int64 = 0
        var gsoRefused: Int64 = 0
    }

    private let socket: CInt
    private let store: ObjectStore
    private let payload: Int
    private let clientLimit: Int
    private let ahead: UInt64
    private let idle: Int64
    private let descriptors: Descriptors
    private let cookies = ServerCookies()
    private var flows: [FlowKey: Flow] = [:]
    private var byID: [UInt32: Flow] = [:]
    private var turns: [UInt32] = []
    private var nextID: UInt32 = 1
    private var unsentByteCount: UInt64 = 0
    private var emitted: UInt64 = 0
    private var counters = Counters()
    private var nextExpiry = Timestamp.zero
    private var isClosed = false

    /// Data and done descriptors that wait for the socket.
    private var queue: [PacketDescriptor] = []
    private var queueStart = 0
    /// Control datagrams that wait for it; bounded, the oldest go first.
    private var control: [(address: SocketAddress, bytes: [UInt8])] = []
    private var isWriteBlocked = false

    private let batch: OpaquePointer
    /// Received datagrams lie here, 2 KiB each; then the messages to send, 64 KiB each.
    private let arena: UnsafeMutableRawBufferPointer
    private static let receiveSlots = 64
    private static let receiveSlot = 2_048
    private static let sendSlots = 4
    private static let sendSlot = 65_536
    private static let controlLimit = 1_024
    private var useGSO = true

    init(socket: CInt, store: ObjectStore, options: UDPServe.Options, descriptors: Descriptors) throws(StageError) {
        guard let batch = unsafe cbatchio_create(UInt32(Self.receiveSlots)) else {
            throw StageError(.resourceExhausted, "no memory for the vectors of a socket")
        }
        unsafe self.batch = batch
        unsafe arena = .allocate(
            byteCount: Self.receiveSlots * Self.receiveSlot + Self.sendSlots * Self.sendSlot,
            alignment: 4_096
        )
        self.socket = socket
        self.store = store
        payload = Int(options.payload.bytes)
        clientLimit = options.server.clients
        ahead = options.server.ahead.bytes
        idle = Timestamp.zero.advanced(by: options.idle).nanoseconds
        self.descriptors = descriptors
        descriptors.watch(socket, for: .read)
        descriptors.watch(store.wakeDescriptor, for: .read)
    }

    deinit {
        unsafe cbatchio_destroy(batch)
        unsafe arena.deallocate()
    }

    // MARK: The capture's turn

    func turn(into output: inout PacketBatch, at now: Timestamp) -> Wake {
        for (descriptor, events) in descriptors.ready {
            if descriptor == store.wakeDescriptor {
                if store.collect() { answerWaiting() }
            } else if descriptor == socket {
                if events.contains(.write) {
                    isWriteBlocked = false
                    descriptors.watch(socket, for: .read)
                }
                receive(at: now)
            }
        }
        if now >= nextExpiry { expire(at: now) }
        write()
        emit(into: &output, at: now)
        return output.isFull ? .immediately : .at(nextExpiry)
    }

    private func expire(at now: Timestamp) {
        nextExpiry = Timestamp(nanoseconds: now.nanoseconds + 1_000_000_000)
        for flow in flows.values where now.nanoseconds - flow.lastHeard.nanoseconds > idle {
            counters.expired += 1
            remove(flow)
        }
    }

    private func remove(_ flow: Flow) {
        flows[flow.key] = nil
        byID[flow.id] = nil
    }

    private func emit(into output: inout PacketBatch, at now: Timestamp) {
        // A run of datagrams of one flow makes a super-packet; then the next flow has its turn.
        let run = max(1, min(32, Int(ahead) / payload))
        while !output.isFull, unsentByteCount < ahead, !turns.isEmpty {
            let id = turns.removeFirst()
            guard let flow = byID[id] else { continue }
            flow.isInTurn = false
            for _ in 0..<run where !output.isFull && unsentByteCount < ahead {
                guard let piece = flow.requests.next(limit: UInt32(payload)) else { break }
                var packet = PacketDescriptor(.data, sequence: emitted, stream: id, captured: now)
                switch piece {
                case .data(let offset, let count):
                    packet.objectOffset = offset
                    packet.byteCount = count
                    unsentByteCount += UInt64(count)
                case .done(let request):
                    packet.kind = .done
                    packet.sequence = UInt64(request)
                }
                emitted += 1
                output.append(packet)
            }
            takeTurn(flow)
        }
    }

    private func takeTurn(_ flow: Flow) {
        guard !flow.requests.isEmpty, !flow.isInTurn else { return }
        flow.isInTurn = true
        turns.append(flow.id)
    }

    // MARK: Receiving

    private func receive(at now: Timestamp) {
        // Four batches a turn: a flood does not keep answers waiting.
        for _ in 0..<4 {
            var packets = unsafe (0..<Self.receiveSlots).map { index in
                var packet = unsafe cbatchio_packet()
                unsafe packet.bytes = arena.baseAddress! + index * Self.receiveSlot
                unsafe packet.byte_count = UInt32(Self.receiveSlot)
                return unsafe packet
            }
            let count = unsafe cbatchio_receive(batch, socket, &packets, UInt32(packets.count), UInt32(packets.count))
            // An ICMP error of a client that went away is told here and means nothing for the others.
            guard count > 0 else { return }
            for index in 0..<Int(count) {
                let packet = unsafe packets[index]
                let address = unsafe withUnsafeBytes(of: packet.address) {
                    unsafe Array($0.prefix(Int(packet.address_length)))
                }
                let isTruncated = unsafe packet.is_truncated != 0
                guard let from = SocketAddress(bytes: address), !isTruncated else {
                    counters.truncated += 1
                    continue
                }
                let raw = unsafe UnsafeRawBufferPointer(start: packet.bytes, count: Int(packet.byte_count))
                unsafe handle(RawSpan(_unsafeBytes: raw), from: from, at: now)
            }
            if count < Self.receiveSlots { return }
        }
    }

    private func handle(_ datagram: RawSpan, from address: SocketAddress, at now: Timestamp) {
        let header: WireHeader
        do throws(WireHeader.Fault) {
            header = try WireHeader.read(datagram)
        } catch {
            if case .unknownType = error { counters.unknownTypes += 1 } else { counters.malformed += 1 }
            return
        }
        guard WireHeader.byteCount + Int(header.payloadByteCount) == datagram.byteCount else {
            counters.malformed += 1
            return
        }
        let payload = datagram.extracting(WireHeader.byteCount..<datagram.byteCount)
        let key = FlowKey(address: address, flow: header.flow)
        switch header.type {
        case .hello:
            guard datagram.byteCount >= helloDatagramByteCount, let hello = Hello(payload) else { return malformed() }
            guard verify(hello.cookie, key, datagram.byteCount, at: now) else { return }
            counters.hello += 1
            greet(hello, key, withDigests: !header.flags.contains(.noDigests), at: now)
        case .request:
            guard let request = RangeRequest(payload) else { return malformed() }
            guard verify(request.cookie, key, datagram.byteCount, at: now) else { return }
            guard let flow = heard(key, at: now) else { return }
            counters.requests += 1
            switch flow.requests.add(request, objectByteCount: flow.object.key.byteCount) {
            case nil: takeTurn(flow)
            case .busy?:
                counters.busy += 1
            case let code?:
                counters.badRanges += 1
                send(WireFailure(code, "the object has \(flow.object.key.byteCount) bytes"), flow)
            }
        case .cancel:
            guard let cancel = RequestCancel(payload) else { return malformed() }
            guard verify(cancel.cookie, key, datagram.byteCount, at: now), let flow = heard(key, at: now) else {
                return
            }
            counters.cancels += 1
            flow.requests.cancel(cancel.id)
        case .blocks:
            guard let request = BlocksRequest(payload) else { return malformed() }
            guard verify(request.cookie, key, datagram.byteCount, at: now), let flow = heard(key, at: now) else {
                return
            }
            counters.blocks += 1
            answer(request, flow)
        case .ping:
            // A ping needs a flow: without one nothing is known of the address.
            guard payload.byteCount <= 64 else { return malformed() }
            guard let flow = heard(key, at: now) else { return }
            counters.pings += 1
            var bytes: [UInt8] = []
            WireHeader(
                .ping,
                flags: .response,
                flow: key.flow,
                sequence: next(flow),
                sendTime: Socket.realtimeNanoseconds(),
                payloadByteCount: UInt16(payload.byteCount)
            ).append(to: &bytes)
            for index in 0..<payload.byteCount {
                bytes.append(unsafe payload.unsafeLoad(fromByteOffset: index, as: UInt8.self))
            }
            post(bytes, to: address)
        case .bye:
            guard let flow = flows[key] else {
                counters.unknownFlows += 1
                return
            }
            counters.byes += 1
            remove(flow)
        case .cookie, .offer, .data, .done, .error: malformed()
        }
    }

    private func malformed() { counters.malformed += 1 }

    private func heard(_ key: FlowKey, at now: Timestamp) -> Flow? {
        guard let flow = flows[key] else {
            counters.unknownFlows += 1
            return nil
        }
        flow.lastHeard = now
        return flow
    }

    /// Whether the address is known to be the sender's own. If not, it gets a cookie, and nothing else.
    private func verify(_ cookie: [UInt8], _ key: FlowKey, _ received: Int, at now: Timestamp) -> Bool {
        if cookies.isValid(cookie, for: key.address.bytes, at: now) { return true }
        counters.unverified += 1
        let answer = Cookie(cookies.cookie(for: key.address.bytes, at: now)).message(
            flow: key.flow,
            sequence: 0,
            sendTime: Socket.realtimeNanoseconds()
        )
        // Of the rule of three there is always enough left: the shortest message that asks for a cookie has 48 bytes.
        if answer.count <= 3 * received {
            counters.cookies += 1
            post(answer, to: key.address)
        }
        return false
    }

    private func greet(_ hello: Hello, _ key: FlowKey, withDigests: Bool, at now: Timestamp) {
        if let flow = flows[key] {
            flow.lastHeard = now
            offer(flow, withDigests: withDigests)
            return
        }
        guard flows.count < clientLimit else {
            counters.turnedAway += 1
            return fail(key, .busy, "the server has \(clientLimit) clients")
        }
        do throws(ObjectName.Refusal) {
            let flow = Flow(id: nextID, key: key, object: try store.object(named: hello.name), at: now)
            nextID &+= 1
            flows[key] = flow
            byID[flow.id] = flow
            offer(flow, withDigests: withDigests)
        } catch {
            fail(key, error == .missing || error == .notAFile ? .noSuchObject : .badName, "no such object")
        }
    }

    private func offer(_ flow: Flow, withDigests: Bool) {
        guard withDigests else { return send(flow.object.offer(nil), flow, flags: .noDigests) }
        do throws(StageError) {
            if let digests = try store.digests(of: flow.object) {
                flow.isOfferWithDigests = false
                send(flow.object.offer(digests), flow)
            } else {
                flow.isOfferWithDigests = true
            }
        } catch {
            counters.fileErrors += 1
            send(WireFailure(.objectChanged, "the object cannot be read"), flow)
        }
    }

    private func answerWaiting() {
        for flow in flows.values where flow.isOfferWithDigests { offer(flow, withDigests: true) }
    }

    private func answer(_ request: BlocksRequest, _ flow: Flow) {
        guard let digests = try? store.digests(of: flow.object), Int(request.first) < digests.blockCount else {
            return send(WireFailure(.badRange, "no such block"), flow)
        }
        let last = min(digests.blockCount, Int(request.first) + min(Int(request.count), BlocksAnswer.datagramLimit))
        let part = Array(digests.blocks[Int(request.first) * 32..<last * 32])
        send(BlocksAnswer(first: request.first, digests: part), flow, flags: .response)
    }

    // MARK: Sending

    private func next(_ flow: Flow) -> UInt64 {
        defer { flow.sequence += 1 }
        return flow.sequence
    }

    private func send(_ payload: some WirePayload, _ flow: Flow, flags: WireFlags = []) {
        post(
            payload.message(
                flow: flow.key.flow,
                sequence: next(flow),
                sendTime: Socket.realtimeNanoseconds(),
                flags: flags
            ),
            to: flow.key.address
        )
    }

    private func fail(_ key: FlowKey, _ code: WireFailure.Code, _ text: String) {
        post(
            WireFailure(code, text).message(flow: key.flow, sequence: 0, sendTime: Socket.realtimeNanoseconds()),
            to: key.address
        )
    }

    private func post(_ bytes: [UInt8], to address: SocketAddress) {
        if control.count >= Self.controlLimit { control.removeFirst() }
        control.append((address, bytes))
    }

    func enqueue(_ packet: PacketDescriptor) { queue.append(packet) }

    func flush(at now: Timestamp) -> Wake {
        write()
        return .whenFed
    }

    private func write() {
        guard !isWriteBlocked, !isClosed else { return }
        while !control.isEmpty {
            let (address, bytes) = control[0]
            let sent = unsafe address.withPointer { pointer, length in
                unsafe bytes.withUnsafeBytes {
                    unsafe sendto(socket, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL), pointer, length)
                }
            }
            if sent < 0, isFull(errno) { return }
            if sent < 0 { counters.sendErrors += 1 }
            control.removeFirst()
        }
        while queueStart < queue.count, !isWriteBlocked { writeMessages() }
        if queueStart == queue.count || queueStart > 4_096 {
            queue.removeFirst(queueStart)
            queueStart = 0
        }
    }

    private func isFull(_ number: CInt) -> Bool {
        guard number == EAGAIN || number == ENOBUFS || number == EINTR else { return false }
        isWriteBlocked = true
        descriptors.watch(socket, for: [.read, .write])
        return true
    }

    /// Builds up to four messages from the head of the queue and sends them; what does not go stays in the queue.
    private func writeMessages() {
        var messages: [cbatchio_packet] = unsafe []
        var takes: [(count: Int, byteCount: UInt64, datagrams: Int64)] = []
        // Sequences are given back for messages that do not go.
        var marks: [(flow: Flow, sequence: UInt64)] = []
        var place = queueStart
        while place < queue.count, takes.count < Self.sendSlots {
            let first = queue[place]
            guard let flow = byID[first.stream] else {
                // The flow has gone: what was to be sent to it is dropped.
                if first.kind == .data { unsentByteCount -= UInt64(first.byteCount) }
                if place == queueStart { queueStart += 1 } else { break }
                place = queueStart
                continue
            }
            let slot = unsafe UnsafeMutableRawBufferPointer(
                start: arena.baseAddress! + Self.receiveSlots * Self.receiveSlot + takes.count * Self.sendSlot,
                count: Self.sendSlot
            )
            let mark = flow.sequence
            let built = unsafe build(flow, from: place, into: slot)
            guard built.count > 0 else {
                counters.fileErrors += 1
                send(WireFailure(.objectChanged, "the object cannot be read"), flow)
                remove(flow)
                continue
            }
            var message = unsafe cbatchio_packet()
            unsafe message.bytes = slot.baseAddress
            unsafe message.byte_count = UInt32(built.length)
            unsafe message.segment = built.count > 1 ? UInt16(WireHeader.byteCount + payload) : 0
            unsafe message.address_length = UInt8(flow.key.address.bytes.count)
            unsafe withUnsafeMutableBytes(of: &message.address) { unsafe $0.copyBytes(from: flow.key.address.bytes) }
            unsafe messages.append(message)
            takes.append((built.count, built.byteCount, Int64(built.count)))
            marks.append((flow, mark))
            place += built.count
        }
        guard !takes.isEmpty else { return }
        let status = unsafe cbatchio_send(batch, socket, &messages, UInt32(takes.count))
        let number = -status
        var sent = Int(max(status, 0))
        if status < 0, !isFull(number) {
            if (number == EIO || number == EINVAL), unsafe messages[0].segment > 0 {
                // No GSO on this path: from now on one datagram a message.
                useGSO = false
                counters.gsoRefused += 1
            } else {
                // This message cannot go (no route, the client refuses): it is lost, as on any path.
                counters.sendErrors += takes[0].datagrams
                finish(takes[0])
                sent = 1
                for mark in marks.dropFirst().reversed() { mark.flow.sequence = mark.sequence }
                return
            }
        }
        for index in 0..<sent {
            counters.sentDatagrams += takes[index].datagrams
            counters.sentByteCount += takes[index].byteCount
            finish(takes[index])
        }
        for mark in marks.dropFirst(sent).reversed() { mark.flow.sequence = mark.sequence }
    }

    private func finish(_ take: (count: Int, byteCount: UInt64, datagrams: Int64)) {
        queueStart += take.count
        unsentByteCount -= take.byteCount
    }

    /// Writes datagrams of one flow back to back: all but the last have a full payload.
    private func build(_ flow: Flow, from place: Int, into slot: UnsafeMutableRawBufferPointer) -> (
        count: Int, length: Int, byteCount: UInt64
    ) {
        let stride = WireHeader.byteCount + payload
        let limit = useGSO ? min(50, 65_507 / stride) : 1
        let time = Socket.realtimeNanoseconds()
        var count = 0
        var length = 0
        var byteCount: UInt64 = 0
        while count < limit, place + count < queue.count, queue[place + count].stream == flow.id {
            let packet = queue[place + count]
            let room = unsafe UnsafeMutableRawBufferPointer(rebasing: slot[length...])
            if packet.kind == .data {
                let got = unsafe pread(
                    flow.object.descriptor,
                    room.baseAddress! + WireHeader.byteCount,
                    Int(packet.byteCount),
                    off_t(packet.objectOffset)
                )
                guard got == Int(packet.byteCount) else { break }
                unsafe WireHeader(
                    .data,
                    flow: flow.key.flow,
                    sequence: next(flow),
                    sendTime: time,
                    objectOffset: packet.objectOffset,
                    payloadByteCount: UInt16(got)
                ).store(into: room)
                length += WireHeader.byteCount + got
                byteCount += UInt64(got)
            } else {
                let done = RequestDone(
                    id: UInt32(truncatingIfNeeded: packet.sequence),
                    lastSequence: flow.sequence &- 1
                ).message(flow: flow.key.flow, sequence: next(flow), sendTime: time)
                unsafe room.copyBytes(from: done)
                length += done.count
            }
            count += 1
            // A shorter datagram can only be the last of a super-packet.
            if length != count * stride { break }
        }
        return (count, length, byteCount)
    }

    func close() {
        for flow in flows.values {
            send(WireFailure(.shuttingDown, "the server ends"), flow)
            post(
                WireHeader(.bye, flow: flow.key.flow, sequence: next(flow), sendTime: Socket.realtimeNanoseconds())
                    .bytes,
                to: flow.key.address
            )
        }
        queue.removeAll()
        queueStart = 0
        write()
        isClosed = true
        descriptors.forget(socket)
        descriptors.forget(store.wakeDescriptor)
        Libc.close(socket)
    }

    var summary: [(key: String, value: SummaryValue)] {
        let counts: [(String, Int64)] = [
            ("received_hello", counters.hello), ("received_request", counters.requests),
            ("received_cancel", counters.cancels), ("received_blocks", counters.blocks),
            ("received_ping", counters.pings), ("received_bye", counters.byes),
            ("received_unverified", counters.unverified), ("received_malformed", counters.malformed),
            ("received_unknown_type", counters.unknownTypes), ("received_unknown_flow", counters.unknownFlows),
            ("received_truncated", counters.truncated), ("cookies_sent", counters.cookies),
            ("clients_turned_away", counters.turnedAway), ("requests_bad_range", counters.badRanges),
            ("requests_busy", counters.busy), ("flows_expired", counters.expired), ("flows_open", Int64(flows.count)),
            ("file_errors", counters.fileErrors), ("datagrams_sent", counters.sentDatagrams),
            ("payload_bytes_sent", Int64(clamping: counters.sentByteCount)), ("send_errors", counters.sendErrors),
            ("gso_refused", counters.gsoRefused),
        ]
        return counts.map { (key: $0.0, value: .integer($0.1)) } + store.summary
    }
}
