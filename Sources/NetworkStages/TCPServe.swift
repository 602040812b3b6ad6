import CBatchIO
import Delivery
public import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Serves the files of a folder over TCP: the capture of a server's pipeline.
///
/// Emits data descriptors with sizes and no bytes, for a `pacer` to let go and a `reply` to send. Each connection is one
/// flow: a HELLO names the object, then come requests. Connections take turns, frame by frame.
public final class TCPServe: Capture, Summarizing {
    public static let typeName = "tcp_serve"

    public struct Options: StageOptions {
        public var server: ServerOptions
        /// Payload bytes of a DATA frame.
        public var frame: ByteCount

        public init(from reader: inout OptionReader) {
            server = ServerOptions(from: &reader)
            frame = reader.read("frame", default: .kibibytes(32), in: ByteCount(512)...ByteCount(65_535))
        }
    }

    public static func demands(of options: Options) -> StageDemands { options.server.demands("tcp") }

    private let options: Options
    private let context: StageContext
    private var endpoint: TCPEndpoint?
    private let holder: EndpointHolder

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
        holder = EndpointHolder.of(context)
        holder.endpoint = DeferredEndpoint()
    }

    public func start(at now: Timestamp) throws(StageError) {
        let store = try ObjectStore(folder: context.resolve(options.server.directory))
        let (descriptor, address) = try Socket.bound(to: options.server.listen, stream: true)
        let endpoint = TCPEndpoint(
            listening: descriptor,
            store: store,
            options: options,
            descriptors: context.descriptors
        )
        self.endpoint = endpoint
        holder.endpoint = endpoint
        context.addresses.post("\(address)", for: "\(context.pipeline)/tcp")
    }

    public func capture(into output: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        endpoint?.turn(into: &output, at: now) ?? .whenFed
    }

    public func finish(at now: Timestamp) throws(StageError) { endpoint?.close() }

    public func summary() -> [(key: String, value: SummaryValue)] { endpoint?.summary ?? [] }
}

/// What both servers are told.
public struct ServerOptions: StageOptions {
    /// Where to listen, `host:port`; port 0 takes a free one.
    public var listen: String
    /// The folder whose files are served.
    public var directory: String
    /// Clients at once; more are turned away and counted.
    public var clients: Int
    /// Bytes handed on ahead of the pacer, for all clients together: what a cancel comes too late for.
    public var ahead: ByteCount

    public init(from reader: inout OptionReader) {
        listen = reader.read("listen", default: "127.0.0.1:0")
        directory = reader.require("directory", placeholder: ".")
        clients = reader.read("clients", default: 1_024, in: 1...65_536)
        ahead = reader.read("ahead", default: .mebibytes(1), in: ByteCount(1_024)...ByteCount(1 << 30))
        if SocketAddress.split(listen) == nil {
            reader.reject("listen", "'listen': expected HOST:PORT or [HOST]:PORT, found '\(listen)'")
        }
    }

    func demands(_ scheme: String) -> StageDemands {
        var demands = StageDemands()
        demands.needsRealTime = true
        demands.providesBytes = false
        demands.isService = true
        demands.listensAt = "\(scheme) \(listen)"
        return demands
    }
}

/// The listening socket and its connections.
private final class TCPEndpoint: ServerEndpoint {
    private final class Connection {
        let id: UInt32
        let descriptor: CInt
        var input: [UInt8] = []
        /// Frames without file bytes that wait to be written.
        var output: [UInt8] = []
        var outputStart = 0
        /// Data whose header is written, or not yet.
        var queue: [PacketDescriptor] = []
        var queueStart = 0
        /// Of the data frame being written: its header, how much of that has gone, and how much of the file.
        var header: [UInt8] = []
        var headerSent = 0
        var fileSent: UInt32?
        var object: ServedObject?
        var flow: UInt32 = 0
        var sequence: UInt64 = 0
        var requests = FlowQueue()
        /// Payload bytes handed to the lane and not written yet.
        var unsentByteCount: UInt64 = 0
        var isAwaitingDigests = false
        var isClosing = false
        var isWriteBlocked = false

        init(id: UInt32, descriptor: CInt) {
            self.id = id
            self.descriptor = descriptor
        }
    }

    /// Every event is in exactly one of these.
    private struct Counters {
        var accepted: Int64 = 0
        var turnedAway: Int64 = 0
        var closed: Int64 = 0
        var malformed: Int64 = 0
        var unknownTypes: Int64 = 0
        var badRanges: Int64 = 0
        var busy: Int64 = 0
        var requests: Int64 = 0
        var cancels: Int64 = 0
        var fileErrors: Int64 = 0
        var sentByteCount: UInt64 = 0
    }

    private let listening: CInt
    private let store: ObjectStore
    private let frame: UInt32
    private let clientLimit: Int
    private let ahead: UInt64
    private let descriptors: Descriptors
    private var connections: [UInt32: Connection] = [:]
    private var byDescriptor: [CInt: Connection] = [:]
    /// Those with something to hand on, in turn.
    private var turns: [UInt32] = []
    private var nextID: UInt32 = 1
    private var unsentByteCount: UInt64 = 0
    private var emitted: UInt64 = 0
    private var counters = Counters()
    private var buffer = [UInt8](repeating: 0, count: 65_536)

    /// The most bytes of a client's unread frames: requests are short.
    private static let inputLimit = 65_536 + 32
    /// Control bytes that may wait for a client that does not read: digests, above all.
    private static let outputLimit = 1 << 20

    init(listening: CInt, store: ObjectStore, options: TCPServe.Options, descriptors: Descriptors) {
        self.listening = listening
        self.store = store
        frame = UInt32(options.frame.bytes)
        clientLimit = options.server.clients
        ahead = options.server.ahead.bytes
        self.descriptors = descriptors
        descriptors.watch(listening, for: .read)
        descriptors.watch(store.wakeDescriptor, for: .read)
    }

    // MARK: The capture's turn

    func turn(into output: inout PacketBatch, at now: Timestamp) -> Wake {
        for (descriptor, events) in descriptors.ready {
            if descriptor == listening {
                accept()
            } else if descriptor == store.wakeDescriptor {
                if store.collect() { answerWaiting() }
            } else if let connection = byDescriptor[descriptor] {
                if events.contains(.write) {
                    connection.isWriteBlocked = false
                    write(connection)
                }
                if events.contains(.read) || events.contains(.hangup) { read(connection) }
            }
        }
        return emit(into: &output, at: now)
    }

    private func emit(into output: inout PacketBatch, at now: Timestamp) -> Wake {
        while !output.isFull, unsentByteCount < ahead, !turns.isEmpty {
            let id = turns.removeFirst()
            guard let connection = connections[id] else { continue }
            // A client that does not read holds up nobody but itself.
            guard connection.unsentByteCount < max(ahead / 4, UInt64(frame)) || connections.count == 1 else {
                turns.append(id)
                if turns.allSatisfy({ isHeldUp($0) }) { break }
                continue
            }
            guard let piece = connection.requests.next(limit: frame) else { continue }
            switch piece {
            case .data(let offset, let count):
                output.append(packet(.data, connection, sequence: emitted, offset: offset, count: count, at: now))
                connection.unsentByteCount += UInt64(count)
                unsentByteCount += UInt64(count)
            case .done(let request):
                output.append(packet(.done, connection, sequence: UInt64(request), offset: 0, count: 0, at: now))
            }
            emitted += 1
            if !connection.requests.isEmpty { turns.append(id) }
        }
        return output.isFull ? .immediately : .whenFed
    }

    private func isHeldUp(_ id: UInt32) -> Bool {
        guard let connection = connections[id] else { return false }
        return connection.unsentByteCount >= max(ahead / 4, UInt64(frame))
    }

    private func packet(
        _ kind: PacketDescriptor.Kind,
        _ connection: Connection,
        sequence: UInt64,
        offset: UInt64,
        count: UInt32,
        at now: Timestamp
    ) -> PacketDescriptor {
        PacketDescriptor(
            kind,
            sequence: sequence,
            stream: connection.id,
            objectOffset: offset,
            byteCount: count,
            captured: now
        )
    }

    // MARK: Connections

    private func accept() {
        while true {
            let descriptor = unsafe Libc.accept(listening, nil, nil)
            guard descriptor >= 0 else {
                // Out of descriptors: the connection waits in the queue; others must end first.
                return
            }
            guard connections.count < clientLimit else {
                counters.turnedAway += 1
                Libc.close(descriptor)
                continue
            }
            Socket.prepare(descriptor)
            let connection = Connection(id: nextID, descriptor: descriptor)
            nextID &+= 1
            counters.accepted += 1
            connections[connection.id] = connection
            byDescriptor[descriptor] = connection
            descriptors.watch(descriptor, for: .read)
        }
    }

    private func drop(_ connection: Connection) {
        guard connections.removeValue(forKey: connection.id) != nil else { return }
        byDescriptor[connection.descriptor] = nil
        unsentByteCount -= connection.unsentByteCount
        connection.unsentByteCount = 0
        connection.queue.removeAll()
        connection.queueStart = 0
        connection.fileSent = nil
        counters.closed += 1
        descriptors.forget(connection.descriptor)
        Libc.close(connection.descriptor)
    }

    private func read(_ connection: Connection) {
        // A few reads a turn: no client keeps the others waiting.
        for _ in 0..<4 {
            let got = unsafe Libc.read(connection.descriptor, &buffer, buffer.count)
            if got < 0, errno == EAGAIN || errno == EINTR { break }
            guard got > 0 else { return drop(connection) }
            connection.input += buffer[..<got]
            guard parse(connection) else { return }
            if got < buffer.count { break }
        }
    }

    /// Takes whole frames from what has been read.
    ///
    /// - Returns: `false` if the connection is gone.
    private func parse(_ connection: Connection) -> Bool {
        var position = 0
        // A reference of its own: what a frame leads to may touch the connection.
        let input = connection.input
        let span = unsafe input.span.bytes
        while input.count - position >= WireHeader.byteCount {
            do throws(WireHeader.Fault) {
                let header = try WireHeader.read(span, at: position)
                let end = position + WireHeader.byteCount + Int(header.payloadByteCount)
                guard end <= span.byteCount else { break }
                let payload = span.extracting(position + WireHeader.byteCount..<end)
                guard handle(header, payload, connection) else {
                    counters.malformed += 1
                    drop(connection)
                    return false
                }
                position = end
            } catch {
                guard case .unknownType(let count) = error else {
                    counters.malformed += 1
                    drop(connection)
                    return false
                }
                let end = position + WireHeader.byteCount + Int(count)
                guard end <= input.count else { break }
                counters.unknownTypes += 1
                position = end
            }
            if connections[connection.id] == nil { return false }
        }
        connection.input.removeFirst(position)
        if connection.input.count > Self.inputLimit
            || connection.output.count - connection.outputStart > Self.outputLimit
        {
            counters.malformed += 1
            drop(connection)
            return false
        }
        write(connection)
        return connections[connection.id] != nil
    }

    /// - Returns: `false` if the message is not one that a client may send.
    private func handle(_ header: WireHeader, _ payload: RawSpan, _ connection: Connection) -> Bool {
        switch header.type {
        case .hello:
            guard let hello = Hello(payload) else { return false }
            connection.flow = header.flow
            do throws(ObjectName.Refusal) {
                connection.object = try store.object(named: hello.name)
                connection.requests = FlowQueue()
                offer(connection, withDigests: !header.flags.contains(.noDigests))
            } catch {
                connection.object = nil
                fail(connection, error == .missing || error == .notAFile ? .noSuchObject : .badName, "no such object")
            }
        case .request:
            guard let request = RangeRequest(payload) else { return false }
            counters.requests += 1
            guard let object = connection.object else {
                fail(connection, .noSuchObject, "no object was named")
                return true
            }
            let wasEmpty = connection.requests.isEmpty
            switch connection.requests.add(request, objectByteCount: object.key.byteCount) {
            case nil: if wasEmpty { turns.append(connection.id) }
            case .busy?:
                counters.busy += 1
                fail(connection, .busy, "more than \(FlowQueue.requestLimit) requests wait")
            case let code?:
                counters.badRanges += 1
                fail(connection, code, "the object has \(object.key.byteCount) bytes")
            }
        case .cancel:
            guard let cancel = RequestCancel(payload) else { return false }
            counters.cancels += 1
            connection.requests.cancel(cancel.id)
        case .blocks:
            guard let request = BlocksRequest(payload) else { return false }
            answer(request, connection)
        case .ping:
            guard payload.byteCount <= 64 else { return false }
            var bytes: [UInt8] = []
            WireHeader(
                .ping,
                flags: .response,
                flow: connection.flow,
                sequence: next(connection),
                sendTime: Socket.realtimeNanoseconds(),
                payloadByteCount: UInt16(payload.byteCount)
            ).append(to: &bytes)
            for index in 0..<payload.byteCount {
                bytes.append(unsafe payload.unsafeLoad(fromByteOffset: index, as: UInt8.self))
            }
            connection.output += bytes
        case .bye: connection.isClosing = true
        case .cookie, .offer, .data, .done, .error: return false
        }
        return true
    }

    private func next(_ connection: Connection) -> UInt64 {
        defer { connection.sequence += 1 }
        return connection.sequence
    }

    private func send(_ payload: some WirePayload, _ connection: Connection, flags: WireFlags = []) {
        connection.output += payload.message(
            flow: connection.flow,
            sequence: next(connection),
            sendTime: Socket.realtimeNanoseconds(),
            flags: flags
        )
    }

    private func fail(_ connection: Connection, _ code: WireFailure.Code, _ text: String) {
        send(WireFailure(code, text), connection)
    }

    private func offer(_ connection: Connection, withDigests: Bool) {
        guard let object = connection.object else { return }
        guard withDigests else { return send(object.offer(nil), connection, flags: .noDigests) }
        do throws(StageError) {
            if let digests = try store.digests(of: object) {
                connection.isAwaitingDigests = false
                send(object.offer(digests), connection)
            } else {
                connection.isAwaitingDigests = true
            }
        } catch {
            counters.fileErrors += 1
            fail(connection, .objectChanged, "the object cannot be read")
        }
    }

    private func answerWaiting() {
        for connection in connections.values where connection.isAwaitingDigests {
            connection.isAwaitingDigests = false
            offer(connection, withDigests: true)
            write(connection)
        }
    }

    private func answer(_ request: BlocksRequest, _ connection: Connection) {
        guard let object = connection.object, let digests = try? store.digests(of: object) else {
            return fail(connection, .noSuchObject, "no digests yet")
        }
        guard Int(request.first) < digests.blockCount else { return fail(connection, .badRange, "no such block") }
        let last = min(digests.blockCount, Int(request.first) + min(Int(request.count), BlocksAnswer.frameLimit))
        let part = Array(digests.blocks[Int(request.first) * 32..<last * 32])
        send(BlocksAnswer(first: request.first, digests: part), connection, flags: .response)
    }

    // MARK: Writing

    func enqueue(_ packet: PacketDescriptor) {
        guard let connection = connections[packet.stream] else { return }
        connection.queue.append(packet)
        if packet.kind == .done, !connection.isWriteBlocked { write(connection) }
    }

    func flush(at now: Timestamp) -> Wake {
        for connection in connections.values
        where connection.queueStart < connection.queue.count && !connection.isWriteBlocked {
            write(connection)
        }
        return .whenFed
    }

    /// Writes until the socket is full or nothing is left.
    private func write(_ connection: Connection) {
        while true {
            // A frame that has begun goes to its end: nothing can come between its header and its payload.
            if let fileSent = connection.fileSent {
                while connection.headerSent < connection.header.count {
                    let sent = write(connection.header, from: connection.headerSent, to: connection, more: true)
                    if sent < 0 { return stop(connection, errno) }
                    connection.headerSent += sent
                }
                guard let object = connection.object else { return drop(connection) }
                let packet = connection.queue[connection.queueStart]
                let sent = cbatchio_send_file(
                    connection.descriptor,
                    object.descriptor,
                    Int64(packet.objectOffset) + Int64(fileSent),
                    UInt64(packet.byteCount - fileSent)
                )
                if sent < 0 { return stop(connection, CInt(-sent)) }
                guard sent > 0 else {
                    // The file has become shorter: what was promised in the header cannot come any more.
                    counters.fileErrors += 1
                    return drop(connection)
                }
                counters.sentByteCount += UInt64(sent)
                connection.fileSent = fileSent + UInt32(sent)
                guard fileSent + UInt32(sent) == packet.byteCount else { continue }
                connection.fileSent = nil
                connection.unsentByteCount -= UInt64(packet.byteCount)
                unsentByteCount -= UInt64(packet.byteCount)
                connection.queueStart += 1
            }
            while connection.outputStart < connection.output.count {
                let sent = write(connection.output, from: connection.outputStart, to: connection, more: false)
                if sent < 0 { return stop(connection, errno) }
                connection.outputStart += sent
            }
            connection.output.removeAll(keepingCapacity: true)
            connection.outputStart = 0
            guard connection.queueStart < connection.queue.count else {
                connection.queue.removeAll(keepingCapacity: true)
                connection.queueStart = 0
                connection.isWriteBlocked = false
                if connection.isClosing, connection.requests.isEmpty { return drop(connection) }
                descriptors.watchIfOpen(connection.descriptor, for: .read)
                return
            }
            let packet = connection.queue[connection.queueStart]
            if packet.kind == .data {
                connection.header.removeAll(keepingCapacity: true)
                connection.headerSent = 0
                WireHeader(
                    .data,
                    flow: connection.flow,
                    sequence: next(connection),
                    sendTime: Socket.realtimeNanoseconds(),
                    objectOffset: packet.objectOffset,
                    payloadByteCount: UInt16(packet.byteCount)
                ).append(to: &connection.header)
                connection.fileSent = 0
            } else {
                send(
                    RequestDone(
                        id: UInt32(truncatingIfNeeded: packet.sequence),
                        lastSequence: connection.sequence &- 1
                    ),
                    connection
                )
                connection.queueStart += 1
            }
        }
    }

    private func write(_ bytes: [UInt8], from start: Int, to connection: Connection, more: Bool) -> Int {
        unsafe bytes.withUnsafeBytes { bytes in
            unsafe Libc.send(
                connection.descriptor,
                bytes.baseAddress! + start,
                bytes.count - start,
                CInt(MSG_NOSIGNAL) | (more ? CInt(MSG_MORE) : 0)
            )
        }
    }

    private func stop(_ connection: Connection, _ number: CInt) {
        guard number == EAGAIN || number == EINTR else { return drop(connection) }
        connection.isWriteBlocked = true
        descriptors.watch(connection.descriptor, for: [.read, .write])
    }

    func close() {
        for connection in connections.values {
            send(WireFailure(.shuttingDown, "the server ends"), connection)
            connection.output +=
                WireHeader(
                    .bye,
                    flow: connection.flow,
                    sequence: next(connection),
                    sendTime: Socket.realtimeNanoseconds()
                ).bytes
            // Between two frames only: half a frame cannot be followed by another.
            if connection.fileSent == nil { write(connection) }
        }
        for connection in Array(connections.values) { drop(connection) }
        descriptors.forget(listening)
        descriptors.forget(store.wakeDescriptor)
        Libc.close(listening)
    }

    var summary: [(key: String, value: SummaryValue)] {
        [
            (key: "connections_accepted", value: .integer(counters.accepted)),
            (key: "connections_turned_away", value: .integer(counters.turnedAway)),
            (key: "connections_closed", value: .integer(counters.closed)),
            (key: "connections_open", value: .integer(Int64(connections.count))),
            (key: "malformed", value: .integer(counters.malformed)),
            (key: "unknown_types", value: .integer(counters.unknownTypes)),
            (key: "requests", value: .integer(counters.requests)),
            (key: "requests_bad_range", value: .integer(counters.badRanges)),
            (key: "requests_busy", value: .integer(counters.busy)),
            (key: "cancels", value: .integer(counters.cancels)),
            (key: "file_errors", value: .integer(counters.fileErrors)),
            (key: "payload_bytes_sent", value: .integer(Int64(clamping: counters.sentByteCount))),
        ] + store.summary
    }
}

extension WireHeader {
    /// The header alone.
    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        append(to: &bytes)
        return bytes
    }
}

extension Descriptors {
    /// Changes what a descriptor is waited on for, if it still is.
    func watchIfOpen(_ descriptor: CInt, for interest: Interest) {
        if isWatching(descriptor) { watch(descriptor, for: interest) }
    }
}
