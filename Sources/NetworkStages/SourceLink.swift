import Delivery
import PipelineCore

/// What a TCP and a UDP source have in common: the states they go through, their estimates, their counters.
final class SourceLink {
    /// `idle` → `connecting` → `greeting` → `up`, back to `idle` at any trouble; `abandoned` is for good.
    enum State {
        /// Waiting to be tried at this time.
        case idle(until: Timestamp)
        case connecting(deadline: Timestamp)
        /// HELLO has been sent.
        case greeting(deadline: Timestamp)
        case up
        case abandoned
    }

    let path: UInt16
    let url: SourceURL
    let context: StageContext
    let options: Fetch.Options
    let board: FetchBoard
    var state = State.idle(until: .zero)
    var estimate = SourceEstimate()
    /// Requests that are not complete, with the bytes they still lack, in order of asking.
    private(set) var outstanding: [(id: UInt64, wireID: UInt32, ranges: [Range<UInt64>])] = []
    private(set) var flow: UInt32
    private(set) var lastTrouble = "not tried yet"
    private var backoff: Int64 = 100_000_000
    private var nextWireID: UInt32 = 0
    private var nextSequence: UInt64 = 0
    private var generator: SeededGenerator
    private var didProgress = false

    /// The last address that it was looked for at.
    private var address = ""
    var byteCount: UInt64 = 0
    var newByteCount: UInt64 = 0
    private var requestCount: Int64 = 0
    private var connectCount: Int64 = 0
    private(set) var troubleCount: Int64 = 0
    var strayByteCount: UInt64 = 0
    /// More counters of the kind of source.
    var extraCounters: [(String, Int64)] = []

    init(path: UInt16, url: SourceURL, context: StageContext, options: Fetch.Options, board: FetchBoard) {
        self.path = path
        self.url = url
        self.context = context
        self.options = options
        self.board = board
        generator = SeededGenerator(seed: context.seed &+ UInt64(path))
        flow = UInt32.random(in: 1 ... .max, using: &generator)
    }

    var isUp: Bool { if case .up = state { true } else { false } }
    var isGreeting: Bool { if case .greeting = state { true } else { false } }
    var isAbandoned: Bool { if case .abandoned = state { true } else { false } }

    /// The address to go to; if there is none yet, or never, ``retry`` says when to ask again.
    func destination(at now: Timestamp) -> SocketAddress? {
        let found = resolved(at: now)
        if let found { address = "\(found)" }
        return found
    }

    private func resolved(at now: Timestamp) -> SocketAddress? {
        do throws(StageError) {
            switch url.server {
            case .address(let text):
                return try SocketAddress.resolve(text, stream: url.scheme == .tcp, passive: false).first
            case .pipeline(let name):
                if let text = context.addresses.address(of: "\(name)/\(url.scheme.rawValue)") {
                    return try SocketAddress.resolve(text, stream: url.scheme == .tcp, passive: false).first
                }
                // The pipeline that serves has not bound its socket yet: that is nobody's trouble.
                state = .idle(until: Timestamp(nanoseconds: now.nanoseconds + 5_000_000))
                board.lastUp = now
            }
        } catch {
            trouble(.refused, error.message, at: now)
        }
        return nil
    }

    /// When the source is tried again, if it is.
    var retry: Wake { if case .idle(let until) = state { .at(until) } else { .whenFed } }

    func deadline(_ duration: Duration, after now: Timestamp) -> Timestamp { now.advanced(by: duration) }

    /// A new flow: the server does not know the last one any more, or may answer it late.
    func beginFlow() {
        flow = UInt32.random(in: 1 ... .max, using: &generator)
        nextSequence = 0
        connectCount += 1
    }

    func sequence() -> UInt64 {
        defer { nextSequence += 1 }
        return nextSequence
    }

    /// A message to the server.
    func message(_ payload: some WirePayload, flags: WireFlags = [], paddedTo byteCount: Int = 0) -> [UInt8] {
        payload.message(
            flow: flow,
            sequence: sequence(),
            sendTime: Socket.realtimeNanoseconds(),
            flags: flags,
            paddedTo: byteCount
        )
    }

    // MARK: Offers and troubles

    /// Why an offer cannot be taken, if it cannot.
    func refusal(of offer: Offer) -> String? {
        guard options.verify == .blocks, !offer.hasDigests else { return nil }
        return "it offers no digests, and 'verify: blocks' needs them"
    }

    /// An offer has come.
    func offered(_ offer: Offer, at now: Timestamp) {
        board.take(offer, from: path, at: now)
        guard !isUp, board.failure == nil else { return }
        state = .up
        backoff = 100_000_000
        lastTrouble = "up"
        board.lastUp = now
        board.reports.append(.source(SourceReport(.up, path: path, at: now)))
    }

    /// Something went wrong: what was outstanding fails, and the source is tried again later, or never.
    func trouble(
        _ event: SourceReport.Event,
        _ words: String,
        detail: Int64 = 0,
        forGood: Bool = false,
        at now: Timestamp
    ) {
        lastTrouble = words
        troubleCount += 1
        board.reports.append(.source(SourceReport(event, path: path, at: now, detail: detail)))
        if forGood {
            state = .abandoned
            if event != .abandoned, event != .noSuchObject {
                board.reports.append(.source(SourceReport(.abandoned, path: path, at: now)))
            }
        } else {
            state = .idle(until: Timestamp(nanoseconds: now.nanoseconds + backoff))
            backoff = min(backoff * 2, 2_000_000_000)
        }
        let failed = outstanding
        outstanding = []
        for request in failed {
            estimate.closed()
            board.fail(request.id, on: path, at: now)
        }
    }

    /// A server said what it cannot do.
    func take(_ failure: WireFailure, at now: Timestamp) {
        switch WireFailure.Code(rawValue: failure.code) {
        case .noSuchObject, .badName:
            trouble(.noSuchObject, "no such object (\(failure.words))", forGood: true, at: now)
        case .objectChanged:
            trouble(.differentObject, "the object has changed (\(failure.words))", forGood: true, at: now)
        case .badRange, .malformed: trouble(.protocolViolation, failure.words, at: now)
        case .busy, .shuttingDown, nil: trouble(.closed, failure.words, at: now)
        }
    }

    /// A source that has sent too many wrong blocks is not used any more.
    var isCondemned: Bool { board.condemned.contains(path) }

    // MARK: Requests

    /// Notes a request.
    ///
    /// - Returns: Its id on the wire.
    func note(_ id: UInt64, _ ranges: [Range<UInt64>], at now: Timestamp) -> UInt32 {
        nextWireID &+= 1
        requestCount += 1
        outstanding.append((id, nextWireID, ranges))
        estimate.requested(at: now)
        return nextWireID
    }

    /// Drops a request.
    ///
    /// - Returns: Its id on the wire, if it was outstanding.
    func drop(_ id: UInt64) -> UInt32? {
        guard let index = outstanding.firstIndex(where: { $0.id == id }) else { return nil }
        estimate.closed()
        return outstanding.remove(at: index).wireID
    }

    /// Whose bytes these are: the request that asked for them.
    func owner(of offset: UInt64) -> UInt64? {
        outstanding.first { $0.ranges.contains { $0.contains(offset) } }?.id
    }

    func request(withWireID id: UInt32) -> UInt64? { outstanding.first { $0.wireID == id }?.id }

    /// Takes a piece of data whose bytes lie in a slot of the lane's pool.
    ///
    /// - Returns: `false` if nobody asked for it.
    func take(
        _ slot: UInt32,
        at place: Int,
        byteCount count: Int,
        offset: UInt64,
        into output: inout PacketBatch,
        now: Timestamp
    ) -> Bool {
        byteCount += UInt64(count)
        didProgress = true
        estimate.received(UInt64(count), at: now)
        guard let id = owner(of: offset),
            let (data, new) = board.describe(id, from: path, offset: offset, byteCount: count, at: now)
        else {
            // It was cancelled, and came all the same.
            strayByteCount += UInt64(count)
            return false
        }
        newByteCount += new
        output.append(data, in: slot, at: place)
        if new > 0, board.digests != nil {
            board.verify(output.payload(at: output.count - 1), at: offset, from: path, now: now)
        }
        if board.settle(id, by: path, at: now) {
            if let index = outstanding.firstIndex(where: { $0.id == id }) {
                closedWireIDs.append(outstanding.remove(at: index).wireID)
                estimate.completed(at: now)
            }
        }
        return true
    }

    /// Requests that have been completed since this was last emptied.
    var closedWireIDs: [UInt32] = []

    /// Tells how the path is doing, if there is something to tell.
    func report(at now: Timestamp) {
        guard didProgress else { return }
        didProgress = false
        let missing = outstanding.reduce(UInt64(0)) { sum, request in
            sum + request.ranges.reduce(0) { $0 + UInt64($1.count) }
        }
        // Of what was asked for, what has come is not outstanding any more.
        let left = outstanding.reduce(UInt64(0)) { sum, request in
            sum
                + request.ranges.reduce(UInt64(0)) { part, range in
                    part + board.received.missing(in: range).reduce(0) { $0 + UInt64($1.count) }
                }
        }
        board.reports.append(
            .path(
                PathReport(
                    path: path,
                    time: now,
                    deliveredByteCount: byteCount,
                    outstandingByteCount: min(left, missing),
                    outstandingRequestCount: UInt32(outstanding.count),
                    rate: estimate.rate,
                    latency: estimate.latency,
                    lastProgress: estimate.lastProgress
                )
            )
        )
    }

    var summary: [(key: String, value: SummaryValue)] {
        let counts: [(String, Int64)] = [
            ("bytes", Int64(clamping: byteCount)), ("new_bytes", Int64(clamping: newByteCount)),
            ("stray_bytes", Int64(clamping: strayByteCount)), ("requests", requestCount), ("connects", connectCount),
            ("troubles", troubleCount),
        ]
        return [
            (key: "name", value: .text(context.sources[Int(path)].name)),
            (key: "url", value: .text(context.sources[Int(path)].url)),
            (key: "address", value: .text(address)), (key: "last", value: .text(lastTrouble)),
            (key: "rate_bps", value: .number(estimate.rate)),
            (key: "latency_ns", value: .integer(estimate.latency)),
        ] + (counts + extraCounters).map { (key: $0.0, value: .integer($0.1)) }
    }
}
