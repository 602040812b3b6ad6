import CBatchIO
import Delivery
import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// A source over UDP: one connected socket, received in batches straight into the lane's pool, lost ranges asked for
/// again.
@safe
final class UDPSource: SourceConnection {
    private let link: SourceLink
    private var descriptor: CInt = -1
    private let batchIO: OpaquePointer?
    private var recovery: any LossRecovery = RangeRecovery()
    private var cookie = [UInt8](repeating: 0, count: cookieByteCount)
    private var nextHello = Timestamp.zero
    private var lastHeard = Timestamp.zero
    private var nextDigests = Timestamp.zero
    /// Control datagrams that the socket had no room for.
    private var unsent: [[UInt8]] = []

    /// Received datagrams: each in exactly one of these.
    private struct Counters {
        var data: Int64 = 0
        var control: Int64 = 0
        var malformed: Int64 = 0
        var otherFlow: Int64 = 0
        var truncated: Int64 = 0

        var reRequests: Int64 = 0
        var outOfOrder: Int64 = 0
        var socketDrops: Int64 = 0
    }
    private var counters = Counters()
    private var clock = ArrivalClock()
    /// Of the flow: the next sequence if nothing is lost, and how many came.
    private var nextSequence: UInt64 = 0
    private var sequencesSeen: UInt64 = 0
    private var lostBefore: Int64 = 0

    private static let messagesPerSlot = 4
    private static let messageByteCount = 65_536
    private static let helloInterval: Int64 = 300_000_000
    /// With requests outstanding and not one datagram for this long, the flow is begun anew.
    private static let silenceLimit: Int64 = 5_000_000_000

    init(_ link: SourceLink) {
        self.link = link
        unsafe batchIO = cbatchio_create(UInt32(Self.messagesPerSlot))
    }

    deinit { unsafe cbatchio_destroy(batchIO) }

    var isUp: Bool { link.isUp }
    var isAbandoned: Bool { link.isAbandoned }
    var isGreeting: Bool { link.isGreeting }
    var hasFailed: Bool { link.troubleCount > 0 }
    var lastTrouble: String { link.lastTrouble }
    private var descriptors: Descriptors { link.context.descriptors }

    func request(_ id: UInt64, _ ranges: [Range<UInt64>], at now: Timestamp) {
        let wireID = link.note(id, ranges, at: now)
        recovery.requested(wireID, at: now)
        ask(wireID, ranges, at: now)
    }

    private func ask(_ wireID: UInt32, _ ranges: [Range<UInt64>], at now: Timestamp) {
        // What does not fit one datagram is asked for when this has been answered.
        let part = Array(ranges.prefix(RangeRequest.rangeLimit))
        send(link.message(RangeRequest(cookie: cookie, id: wireID, ranges: part)), at: now)
    }

    func cancel(_ id: UInt64, at now: Timestamp) {
        guard let wireID = link.drop(id) else { return }
        recovery.closed(wireID)
        send(link.message(RequestCancel(cookie: cookie, id: wireID)), at: now)
    }

    // MARK: Turns

    func turn(into batch: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        clock.begin(now)
        switch link.state {
        case .abandoned: return .whenFed
        case .idle(let until):
            guard until <= now else { return .at(until) }
            return try open(at: now)
        case .connecting(let deadline):
            if deadline <= now { end(.timedOut, "no answer within \(link.options.connectTimeout)", at: now) }
        case .greeting(let deadline):
            if deadline <= now { end(.timedOut, "no offer within \(link.options.offerTimeout)", at: now) }
        case .up: break
        }
        guard descriptor >= 0 else { return link.retry }
        var wake = receive(into: &batch, at: now)
        if link.isCondemned, !link.isAbandoned { end(.abandoned, "sent wrong bytes", forGood: true, at: now) }
        link.report(at: now)
        wake = wake.sooner(of: tend(at: now))
        return wake
    }

    /// Greets, asks again, begins anew: what time brings.
    private func tend(at now: Timestamp) -> Wake {
        switch link.state {
        case .connecting(let deadline), .greeting(let deadline):
            if nextHello <= now { greet(at: now) }
            return .at(min(deadline, nextHello))
        case .idle(let until): return .at(until)
        case .abandoned: return .whenFed
        case .up: break
        }
        flushUnsent(at: now)
        var wake = Wake.whenFed
        for wireID in link.closedWireIDs { recovery.closed(wireID) }
        link.closedWireIDs.removeAll()
        for wireID in recovery.due(at: now) {
            guard let id = link.request(withWireID: wireID) else {
                recovery.closed(wireID)
                continue
            }
            let missing = link.board.missing(id)
            guard !missing.isEmpty, link.board.wants(id, from: link.path) else {
                recovery.closed(wireID)
                _ = link.drop(id)
                continue
            }
            counters.reRequests += 1
            ask(wireID, missing, at: now)
        }
        if let timer = recovery.nextTimer {
            wake = .at(timer)
            if now.nanoseconds - lastHeard.nanoseconds > Self.silenceLimit {
                end(.timedOut, "not a datagram for \(Self.silenceLimit / 1_000_000_000) s", at: now)
                return link.retry
            }
        } else {
            lastHeard = max(lastHeard, now)
        }
        if let next = link.board.digests?.next(limit: BlocksAnswer.datagramLimit) {
            if nextDigests <= now {
                nextDigests = Timestamp(nanoseconds: now.nanoseconds + Self.helloInterval)
                send(link.message(BlocksRequest(cookie: cookie, first: next.first, count: next.count)), at: now)
            }
            wake = wake.sooner(of: .at(nextDigests))
        }
        return wake
    }

    private func open(at now: Timestamp) throws(StageError) -> Wake {
        guard let address = link.destination(at: now) else { return link.retry }
        descriptor = try Socket.open(address.family, stream: false)
        guard unsafe address.withPointer({ unsafe Glibc.connect(descriptor, $0, $1) }) == 0 else {
            end(.refused, "cannot reach \(address): \(Socket.message(errno))", detail: errno, at: now)
            return .whenFed
        }
        _ = cbatchio_configure(descriptor, address.family, UInt32(CBATCHIO_GRO | CBATCHIO_DROP_COUNT))
        _ = cbatchio_set_receive_buffer(descriptor, CInt(clamping: link.options.receiveBuffer.bytes))
        descriptors.watch(descriptor, for: .read)
        link.beginFlow()
        recovery = RangeRecovery()
        nextSequence = 0
        sequencesSeen = 0
        lastHeard = now
        let deadline = link.deadline(link.options.connectTimeout, after: now)
        link.state = .connecting(deadline: deadline)
        greet(at: now)
        return .at(nextHello)
    }

    private func greet(at now: Timestamp) {
        nextHello = Timestamp(nanoseconds: now.nanoseconds + Self.helloInterval)
        send(
            link.message(
                Hello(cookie: cookie, name: link.url.object),
                flags: link.options.verify == .none ? .noDigests : [],
                paddedTo: helloDatagramByteCount
            ),
            at: now
        )
    }

    private func end(
        _ event: SourceReport.Event,
        _ words: String,
        detail: CInt = 0,
        forGood: Bool = false,
        at now: Timestamp
    ) {
        shut()
        link.trouble(event, words, detail: Int64(detail), forGood: forGood, at: now)
    }

    private func shut() {
        guard descriptor >= 0 else { return }
        descriptors.forget(descriptor)
        Libc.close(descriptor)
        descriptor = -1
        unsent = []
        lostBefore += Int64(clamping: nextSequence > sequencesSeen ? nextSequence - sequencesSeen : 0)
        nextSequence = 0
        sequencesSeen = 0
        nextDigests = .zero
        recovery = RangeRecovery()
    }

    // MARK: Datagrams

    private func send(_ bytes: [UInt8], at now: Timestamp) {
        guard descriptor >= 0 else { return }
        let sent = unsafe bytes.withUnsafeBytes {
            unsafe Libc.send(descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
        }
        guard sent < 0 else { return }
        switch errno {
        case EAGAIN, ENOBUFS, EINTR: if unsent.count < 256 { unsent.append(bytes) }
        case let number:
            end(link.isUp ? .closed : .refused, "cannot send: \(Socket.message(number))", detail: number, at: now)
        }
    }

    private func flushUnsent(at now: Timestamp) {
        guard !unsent.isEmpty else { return }
        let waiting = unsent
        unsent = []
        for bytes in waiting { send(bytes, at: now) }
    }

    private func receive(into batch: inout PacketBatch, at now: Timestamp) -> Wake {
        guard descriptors.ready.contains(where: { $0.descriptor == descriptor }), let io = unsafe batchIO else {
            return .whenFed
        }
        let pool = batch.pool
        // A super-packet may hold fifty datagrams, and a read cannot be taken back: room for all first.
        while batch.freeCapacity >= Self.messagesPerSlot * 56 || batch.count == 0 {
            guard let slot = pool.take() else { return .immediately }
            defer { pool.release(slot) }
            let bytes = unsafe pool.slotBytes(slot)
            var packets = unsafe (0..<Self.messagesPerSlot).map { index in
                var packet = unsafe cbatchio_packet()
                unsafe packet.bytes = bytes.baseAddress! + index * Self.messageByteCount
                unsafe packet.byte_count = UInt32(Self.messageByteCount)
                return unsafe packet
            }
            let wanted = max(1, min(Self.messagesPerSlot, batch.freeCapacity / 56))
            let count = unsafe cbatchio_receive(io, descriptor, &packets, UInt32(wanted), UInt32(wanted))
            if count < 0 {
                // ICMP said that nobody is there.
                end(
                    link.isUp ? .closed : .refused,
                    "cannot receive: \(Socket.message(-count))",
                    detail: -count,
                    at: now
                )
                return .whenFed
            }
            guard count > 0 else { return .whenFed }
            let arrived = clock.now(in: now)
            for index in 0..<Int(count) {
                let packet = unsafe packets[index]
                unsafe counters.socketDrops = max(counters.socketDrops, Int64(packet.dropped))
                guard unsafe packet.is_truncated == 0 else {
                    counters.truncated += 1
                    continue
                }
                let total = unsafe Int(packet.byte_count)
                let stride = unsafe packet.segment > 0 ? Int(packet.segment) : total
                var place = 0
                while place < total {
                    let length = min(stride, total - place)
                    handle(slot, index * Self.messageByteCount + place, length, into: &batch, at: arrived)
                    place += max(1, length)
                    if descriptor < 0 { return .whenFed }
                }
            }
            if Int(count) < wanted { return .whenFed }
        }
        return .immediately
    }

    private func handle(_ slot: UInt32, _ place: Int, _ length: Int, into batch: inout PacketBatch, at now: Timestamp) {
        let bytes = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(batch.pool.slotBytes(slot)))
            .extracting(place..<place + length)
        guard let header = try? WireHeader.read(bytes),
            WireHeader.byteCount + Int(header.payloadByteCount) == length
        else {
            counters.malformed += 1
            return
        }
        guard header.flow == link.flow else {
            counters.otherFlow += 1
            return
        }
        lastHeard = now
        let payload = bytes.extracting(WireHeader.byteCount..<length)
        if header.type == .data {
            counters.data += 1
            note(header.sequence)
            recovery.heard(at: now)
            // A retraction goes before the bytes that come after it, or it would take those back.
            link.board.passOn(into: &batch)
            guard link.isUp, header.payloadByteCount > 0, batch.freeCapacity > 0 else { return }
            _ = link.take(
                slot,
                at: place + WireHeader.byteCount,
                byteCount: Int(header.payloadByteCount),
                offset: header.objectOffset,
                into: &batch,
                now: now
            )
            return
        }
        counters.control += 1
        switch header.type {
        case .cookie:
            guard let new = Cookie(payload) else { return malformed() }
            cookie = new.bytes
            if !link.isUp {
                link.state = .greeting(deadline: link.deadline(link.options.offerTimeout, after: now))
                greet(at: now)
            }
        case .offer:
            guard let offer = Offer(payload), offer.blockByteCount == UInt32(blockByteCount) else { return malformed() }
            note(header.sequence)
            if let reason = link.refusal(of: offer) {
                end(.protocolViolation, reason, forGood: true, at: now)
            } else {
                link.offered(offer, at: now)
            }
        case .done:
            guard let done = RequestDone(payload) else { return malformed() }
            note(header.sequence)
            recovery.heard(at: now)
            recovery.finished(done.id, at: now)
        case .blocks:
            guard header.flags.contains(.response), let answer = BlocksAnswer(payload) else { return malformed() }
            note(header.sequence)
            link.board.take(answer, from: link.path, at: now)
            nextDigests = now
        case .error:
            guard let failure = WireFailure(payload) else { return malformed() }
            shut()
            link.take(failure, at: now)
        case .bye:
            shut()
            link.trouble(.closed, "the server ended", at: now)
        case .ping: note(header.sequence)
        case .hello, .request, .cancel, .data: malformed()
        }
    }

    private func malformed() {
        counters.control -= 1
        counters.malformed += 1
    }

    private func note(_ sequence: UInt64) {
        sequencesSeen += 1
        if sequence >= nextSequence { nextSequence = sequence + 1 } else { counters.outOfOrder += 1 }
    }

    func close(at now: Timestamp) {
        if link.isUp {
            send(
                WireHeader(.bye, flow: link.flow, sequence: link.sequence(), sendTime: Socket.realtimeNanoseconds())
                    .bytes,
                at: now
            )
        }
        shut()
    }

    var summary: [(key: String, value: SummaryValue)] {
        link.extraCounters = [
            ("datagrams_data", counters.data), ("datagrams_control", counters.control),
            ("datagrams_malformed", counters.malformed), ("datagrams_other_flow", counters.otherFlow),
            ("datagrams_truncated", counters.truncated), ("datagrams_out_of_order", counters.outOfOrder),
            (
                "datagrams_lost",
                lostBefore + Int64(clamping: nextSequence > sequencesSeen ? nextSequence - sequencesSeen : 0)
            ),
            ("socket_drops", counters.socketDrops), ("re_requests", counters.reRequests),
        ]
        return link.summary
    }
}
