import Delivery
import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// A source over TCP: one connection, read straight into the lane's pool, frames parsed where they lie.
final class TCPSource: SourceConnection {
    private let link: SourceLink
    private var descriptor: CInt = -1
    private var output: [UInt8] = []
    private var outputStart = 0
    /// The slot that is being read into, how full it is, and how far it has been parsed.
    private var slot: UInt32?
    private var filled = 0
    private var parsed = 0
    /// Of a DATA frame whose header has been parsed: where the rest of its payload belongs, and how much is to come.
    private var data: (offset: UInt64, left: Int)?
    private var pool: PacketPool?
    private var isHungUp = false
    private var unknownTypes: Int64 = 0
    private var clock = ArrivalClock()
    /// Blocks whose digests have been asked for and not come.
    private var asksForDigests = false

    init(_ link: SourceLink) { self.link = link }

    var isUp: Bool { link.isUp }
    var isAbandoned: Bool { link.isAbandoned }
    var isGreeting: Bool { link.isGreeting }
    var hasFailed: Bool { link.troubleCount > 0 }
    var lastTrouble: String { link.lastTrouble }
    private var descriptors: Descriptors { link.context.descriptors }

    func request(_ id: UInt64, _ ranges: [Range<UInt64>], at now: Timestamp) {
        let wireID = link.note(id, ranges, at: now)
        for start in stride(from: 0, to: ranges.count, by: RangeRequest.rangeLimit) {
            let part = Array(ranges[start..<min(ranges.count, start + RangeRequest.rangeLimit)])
            output += link.message(RangeRequest(id: wireID, ranges: part))
        }
    }

    func cancel(_ id: UInt64, at now: Timestamp) {
        if let wireID = link.drop(id) { output += link.message(RequestCancel(id: wireID)) }
    }

    // MARK: Turns

    func turn(into batch: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        clock.begin(now)
        pool = batch.pool
        var wake = Wake.whenFed
        switch link.state {
        case .abandoned: return .whenFed
        case .idle(let until):
            guard until <= now else { return .at(until) }
            return try connect(at: now)
        case .connecting(let deadline):
            if descriptors.ready.contains(where: { $0.descriptor == descriptor }) { finishConnect(at: now) }
            if case .connecting = link.state, deadline <= now {
                end(.timedOut, "no connection within \(link.options.connectTimeout)", at: now)
            }
        case .greeting(let deadline):
            if deadline <= now { end(.timedOut, "no offer within \(link.options.offerTimeout)", at: now) }
        case .up: break
        }
        guard descriptor >= 0 else { return link.retry }
        if case .connecting(let deadline) = link.state { return .at(deadline) }
        wake = wake.sooner(of: try receive(into: &batch, at: now))
        if link.isCondemned, !link.isAbandoned { end(.abandoned, "sent wrong bytes", forGood: true, at: now) }
        askForDigests()
        write(at: now)
        link.report(at: now)
        switch link.state {
        case .idle(let until): return wake.sooner(of: .at(until))
        case .connecting(let deadline), .greeting(let deadline): return wake.sooner(of: .at(deadline))
        case .up, .abandoned: return wake
        }
    }

    private func connect(at now: Timestamp) throws(StageError) -> Wake {
        guard let address = link.destination(at: now) else { return link.retry }
        descriptor = try Socket.open(address.family, stream: true)
        link.beginFlow()
        let deadline = link.deadline(link.options.connectTimeout, after: now)
        link.state = .connecting(deadline: deadline)
        let status = unsafe address.withPointer { unsafe Glibc.connect(descriptor, $0, $1) }
        if status == 0 {
            greet(at: now)
        } else if errno == EINPROGRESS {
            descriptors.watch(descriptor, for: [.read, .write])
        } else {
            end(.refused, "cannot connect to \(address): \(Socket.message(errno))", detail: errno, at: now)
        }
        return .at(deadline)
    }

    private func finishConnect(at now: Timestamp) {
        let number = Socket.pendingError(of: descriptor)
        guard number == 0 else {
            return end(.refused, "cannot connect: \(Socket.message(number))", detail: number, at: now)
        }
        greet(at: now)
    }

    private func greet(at now: Timestamp) {
        descriptors.watch(descriptor, for: .read)
        link.state = .greeting(deadline: link.deadline(link.options.offerTimeout, after: now))
        output += link.message(
            Hello(name: link.url.object),
            flags: link.options.verify == .none ? .noDigests : []
        )
        write(at: now)
    }

    /// Closes the connection and says why.
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
        output = []
        outputStart = 0
        if let slot { pool?.release(slot) }
        slot = nil
        filled = 0
        parsed = 0
        data = nil
        isHungUp = false
        asksForDigests = false
    }

    // MARK: Reading

    private func receive(into batch: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        guard let pool else { return .whenFed }
        // What was left when the output was full comes first.
        guard parse(into: &batch, at: now) else { return batch.isFull ? .immediately : .whenFed }
        let isReady = descriptors.ready.contains { $0.descriptor == descriptor }
        guard isReady, descriptor >= 0 else { return .whenFed }
        for _ in 0..<8 {
            guard prepareSlot(pool), let slot else { return .immediately }
            let bytes = unsafe pool.slotBytes(slot)
            let got = unsafe Libc.read(descriptor, bytes.baseAddress! + filled, bytes.count - filled)
            if got < 0 {
                if errno == EAGAIN || errno == EINTR { return .whenFed }
                let number = errno
                end(.closed, "the connection broke: \(Socket.message(number))", detail: number, at: now)
                return .whenFed
            }
            guard got > 0 else {
                end(.closed, "the server closed the connection", at: now)
                return .whenFed
            }
            filled += got
            guard parse(into: &batch, at: clock.now(in: now)) else { return batch.isFull ? .immediately : .whenFed }
        }
        return .immediately
    }

    /// Makes sure that there is room to read into: a slot that is full is left to its packets, its unparsed tail moved.
    private func prepareSlot(_ pool: PacketPool) -> Bool {
        if let old = slot {
            guard pool.slotByteCount - filled < 32_768 else { return true }
            guard let new = pool.take() else { return false }
            let tail = filled - parsed
            if tail > 0 {
                unsafe pool.slotBytes(new).copyMemory(
                    from: UnsafeRawBufferPointer(rebasing: pool.slotBytes(old)[parsed..<filled])
                )
            }
            pool.release(old)
            slot = new
            filled = tail
            parsed = 0
            return true
        }
        slot = pool.take()
        filled = 0
        parsed = 0
        return slot != nil
    }

    /// Parses what has been read.
    ///
    /// - Returns: `false` if it must stop: the output is full, or the connection has ended.
    private func parse(into batch: inout PacketBatch, at now: Timestamp) -> Bool {
        while let slot, let pool, parsed < filled {
            if let (offset, left) = data {
                // A retraction goes before the bytes that come after it, or it would take those back.
                link.board.passOn(into: &batch)
                guard batch.freeCapacity > 0 else { return false }
                let count = min(left, filled - parsed, 65_536)
                _ = link.take(slot, at: parsed, byteCount: count, offset: offset, into: &batch, now: now)
                parsed += count
                data = left > count ? (offset + UInt64(count), left - count) : nil
                if link.board.failure != nil { return false }
                continue
            }
            let bytes = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(pool.slotBytes(slot)))
                .extracting(parsed..<filled)
            do throws(WireHeader.Fault) {
                let header = try WireHeader.read(bytes)
                if header.type == .data {
                    parsed += WireHeader.byteCount
                    guard header.payloadByteCount > 0 else { continue }
                    data = (header.objectOffset, Int(header.payloadByteCount))
                    continue
                }
                let end = WireHeader.byteCount + Int(header.payloadByteCount)
                guard end <= bytes.byteCount else { return true }
                parsed += end
                guard handle(header, bytes.extracting(WireHeader.byteCount..<end), at: now) else {
                    self.end(.protocolViolation, "it sent a frame that is not one of ours", at: now)
                    return false
                }
                if descriptor < 0 { return false }
            } catch {
                switch error {
                case .short: return true
                case .foreign:
                    end(.protocolViolation, "it sent bytes that are no frame of ours", at: now)
                    return false
                case .unknownType(let count):
                    guard WireHeader.byteCount + Int(count) <= bytes.byteCount else { return true }
                    unknownTypes += 1
                    parsed += WireHeader.byteCount + Int(count)
                }
            }
        }
        return true
    }

    private func handle(_ header: WireHeader, _ payload: RawSpan, at now: Timestamp) -> Bool {
        switch header.type {
        case .offer:
            guard let offer = Offer(payload), offer.blockByteCount == UInt32(blockByteCount) else { return false }
            if let reason = link.refusal(of: offer) {
                end(.protocolViolation, reason, forGood: true, at: now)
            } else {
                link.offered(offer, at: now)
            }
        case .done:
            guard let done = RequestDone(payload) else { return false }
            link.closedWireIDs.removeAll()
            // Answered to its end, and bytes are missing: they were taken back meanwhile.
            if let id = link.request(withWireID: done.id) {
                let missing = link.board.missing(id)
                _ = link.drop(id)
                if !missing.isEmpty, link.board.wants(id, from: link.path) { request(id, missing, at: now) }
            }
        case .blocks:
            guard header.flags.contains(.response), let answer = BlocksAnswer(payload) else { return false }
            asksForDigests = false
            link.board.take(answer, from: link.path, at: now)
        case .error:
            guard let failure = WireFailure(payload) else { return false }
            shut()
            link.take(failure, at: now)
        case .ping: break
        case .bye:
            shut()
            link.trouble(.closed, "the server ended", at: now)
        case .hello, .cookie, .request, .data, .cancel: return false
        }
        return true
    }

    private func askForDigests() {
        guard link.isUp, !asksForDigests, let next = link.board.digests?.next(limit: BlocksAnswer.frameLimit) else {
            return
        }
        asksForDigests = true
        output += link.message(BlocksRequest(first: next.first, count: next.count))
    }

    // MARK: Writing

    private func write(at now: Timestamp) {
        guard descriptor >= 0 else { return }
        if case .connecting = link.state { return }
        while outputStart < output.count {
            let sent = unsafe output.withUnsafeBytes {
                unsafe Libc.send(descriptor, $0.baseAddress! + outputStart, $0.count - outputStart, CInt(MSG_NOSIGNAL))
            }
            if sent < 0 {
                if errno == EAGAIN || errno == EINTR { return descriptors.watch(descriptor, for: [.read, .write]) }
                let number = errno
                return end(.closed, "the connection broke: \(Socket.message(number))", detail: number, at: now)
            }
            outputStart += sent
        }
        output.removeAll(keepingCapacity: true)
        outputStart = 0
        descriptors.watch(descriptor, for: .read)
    }

    func close(at now: Timestamp) {
        if link.isUp {
            output +=
                WireHeader(.bye, flow: link.flow, sequence: link.sequence(), sendTime: Socket.realtimeNanoseconds())
                .bytes
            write(at: now)
        }
        shut()
    }

    var summary: [(key: String, value: SummaryValue)] {
        link.extraCounters = [("unknown_types", unknownTypes)]
        return link.summary
    }
}
