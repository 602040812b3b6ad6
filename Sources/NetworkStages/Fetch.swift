import Delivery
public import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Fetches chunks from any mix of `tcp://` and `udp://` sources: the transport of a real movie pipeline.
///
/// Requests and hedges go in, data pieces and one `done` a chunk come out. Bytes pass on as they come; each block of 64
/// KiB is checked against its digest when it is whole, and a wrong one is retracted, laid to the source that sent it, and
/// fetched from another.
public final class Fetch: Transport, Reporter, Summarizing {
    public static let typeName = "fetch"

    /// Whether blocks are checked.
    public enum Verification: String, OptionChoice { case blocks, none }

    /// When the first chunk is asked for.
    public enum Begin: String, OptionChoice {
        /// As soon as one source has offered the object.
        case first
        /// When every source has, or cannot: what an experiment wants that is compared with virtual time.
        case all
    }

    public struct Options: StageOptions {
        /// `blocks`: every block of 64 KiB against its SHA-256; `none`: nothing.
        public var verify: Verification
        /// `first`: begin with the first source that is there; `all`: wait for the others.
        public var begin: Begin
        /// How long a connection may take to come about.
        public var connectTimeout: Duration
        /// How long an offer may take: a server reads a large file once for its digest.
        public var offerTimeout: Duration
        /// How long to go on when no source is left that answers.
        public var patience: Duration
        /// Bytes that the system may hold for each UDP source.
        public var receiveBuffer: ByteCount

        public init(from reader: inout OptionReader) {
            verify = reader.read("verify", default: .blocks)
            begin = reader.read("begin", default: .first)
            connectTimeout = reader.read(
                "connect_timeout",
                default: .seconds(3),
                in: .milliseconds(1)...(.seconds(3_600))
            )
            offerTimeout = reader.read("offer_timeout", default: .seconds(30), in: .milliseconds(1)...(.seconds(3_600)))
            patience = reader.read("patience", default: .seconds(10), in: .milliseconds(1)...(.seconds(86_400)))
            receiveBuffer = reader.read(
                "receive_buffer",
                default: .mebibytes(4),
                in: .kibibytes(64)...(.mebibytes(1_024))
            )
        }
    }

    public static func demands(of options: Options) -> StageDemands {
        var demands = StageDemands()
        demands.needsRealTime = true
        demands.needsSources = true
        demands.providesBytes = true
        demands.slotByteCount = 262_144
        demands.heldSlotCount = 32
        // A received super-packet is many datagrams, and is taken whole.
        demands.batchCapacity = 512
        return demands
    }

    public static func problems(of options: Options, with sources: [Source]) -> [String] {
        sources.compactMap { source in
            do throws(SourceURL.Mistake) {
                _ = try SourceURL(source.url)
                return nil
            } catch {
                return "source '\(source.name)': \(error.message)"
            }
        }
    }

    private let board: FetchBoard
    private var connections: [any SourceConnection] = []
    private let context: StageContext
    private let options: Options

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
        board = FetchBoard(sources: context.sources, verifies: options.verify == .blocks)
    }

    public func start(at now: Timestamp) throws(StageError) {
        // Patience counts from here: a lane may start long after the run's time zero on a busy machine.
        board.lastUp = now
        for (index, source) in context.sources.enumerated() {
            let url: SourceURL
            do throws(SourceURL.Mistake) {
                url = try SourceURL(source.url)
            } catch {
                throw StageError(.invalidInput, error.message)
            }
            let link = SourceLink(path: UInt16(index), url: url, context: context, options: options, board: board)
            connections.append(url.scheme == .tcp ? TCPSource(link) : UDPSource(link))
        }
    }

    public func transfer(_ input: inout PacketBatch, into output: inout PacketBatch, at now: Timestamp)
        throws(StageError) -> Wake
    {
        do {
            let packets = input.descriptors
            for index in packets.indices { accept(packets[index], at: now) }
        }
        input.removeAll()
        board.passOn(into: &output)
        var wake = Wake.whenFed
        // Sources take turns at being first, so that a fast one does not starve the others of room.
        let first = board.turn % max(1, connections.count)
        board.turn += 1
        for step in connections.indices {
            let index = (first + step) % connections.count
            wake = wake.sooner(of: try connections[index].turn(into: &output, at: now))
        }
        board.passOn(into: &output)
        if options.begin == .first || connections.allSatisfy({ $0.isUp || $0.isAbandoned || $0.hasFailed }) {
            board.announceObject()
        }
        if let error = board.failure { throw error }
        assignRepairs(at: now)
        try checkLife(at: now)
        board.announceIfComplete()
        if !board.outbox.isEmpty { return .immediately }
        // All is there and right: a source that is still being tried is no reason to go on.
        if board.isVerified { return .whenFed }
        // While something is on its way, the lane must not take silence for the end.
        if board.isBusy { wake = wake.sooner(of: .at(Timestamp(nanoseconds: now.nanoseconds + 50_000_000))) }
        return wake
    }

    private func accept(_ packet: PacketDescriptor, at now: Timestamp) {
        let path = Int(packet.path)
        switch packet.kind {
        case .request, .hedge:
            board.ask(packet, at: now)
            let missing = board.received.missing(in: packet.objectOffset..<packet.objectEnd)
            if missing.isEmpty {
                board.completeChunk(packet.sequence, by: packet.path, at: now)
            } else if connections[path].isUp {
                connections[path].request(packet.sequence, missing, at: now)
            } else {
                board.fail(packet.sequence, on: packet.path, at: now)
            }
        case .cancel:
            if board.forget(packet.sequence, on: packet.path) { connections[path].cancel(packet.sequence, at: now) }
        case .data, .done, .retract: break
        }
    }

    /// Fetches retracted blocks anew, from someone else where there is someone else.
    private func assignRepairs(at now: Timestamp) {
        guard !board.repairs.isEmpty else { return }
        for (block, repair) in board.repairs where repair.path == nil {
            let up = connections.indices.filter { connections[$0].isUp }
            let choice =
                up.first { UInt16($0) != repair.blamed && !repair.tried.contains(UInt16($0)) }
                ?? up.first { UInt16($0) != repair.blamed } ?? up.first
            guard let choice else { continue }
            board.repairs[block]?.path = UInt16(choice)
            board.repairs[block]?.tried.insert(UInt16(choice))
            connections[choice].request(FetchBoard.repairFlag | block, [repair.range], at: now)
        }
    }

    /// Ends the run when nobody is left to fetch from.
    private func checkLife(at now: Timestamp) throws(StageError) {
        guard !board.isVerified else { return }
        // A server that owes an offer may be reading a large file for it; that has a limit of its own.
        if connections.contains(where: { $0.isUp || $0.isGreeting }) { board.lastUp = now }
        let hasHope = connections.contains { !$0.isAbandoned }
        let patience = Timestamp.zero.advanced(by: options.patience).nanoseconds
        guard !hasHope || now.nanoseconds - board.lastUp.nanoseconds > patience else { return }
        let reasons = zip(context.sources, connections).map { "'\($0.name)': \($1.lastTrouble)" }
        throw StageError(.resourceExhausted, "no source is left: \(reasons.joined(separator: "; "))")
    }

    public func nextReport() -> Report? { board.reports.isEmpty ? nil : board.reports.removeFirst() }

    public func finish(at now: Timestamp) throws(StageError) {
        for connection in connections { connection.close(at: now) }
    }

    public func summary() -> [(key: String, value: SummaryValue)] {
        [
            (key: "verified", value: .boolean(board.isVerified)),
            (key: "digest", value: board.offer.map { .text(hex($0.digest)) } ?? .null),
            (key: "sources", value: .list(connections.map { .object($0.summary) })),
        ]
    }
}

/// Lower-case hexadecimal.
func hex(_ bytes: some Sequence<UInt8>) -> String {
    bytes.reduce(into: "") { text, byte in
        let digits = String(byte, radix: 16)
        text += digits.count == 1 ? "0" + digits : digits
    }
}

/// One way to one source.
protocol SourceConnection: AnyObject {
    /// Whether requests may be made.
    var isUp: Bool { get }
    /// Whether it has been asked for an offer and has not given one.
    var isGreeting: Bool { get }
    /// Whether it will never be tried again.
    var isAbandoned: Bool { get }
    /// Whether it has failed at least once.
    var hasFailed: Bool { get }
    /// Why it is not up, in words.
    var lastTrouble: String { get }
    /// Asks for ranges of the object on behalf of a chunk, or of a repair.
    func request(_ id: UInt64, _ ranges: [Range<UInt64>], at now: Timestamp)
    /// Drops what is left of a request.
    func cancel(_ id: UInt64, at now: Timestamp)
    /// Does what can be done now.
    func turn(into output: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake
    func close(at now: Timestamp)
    var summary: [(key: String, value: SummaryValue)] { get }
}

/// What the sources of one fetch have in common: which bytes are there, whose chunk is whose, what turned out wrong.
final class FetchBoard {
    struct Copy {
        var requested: Timestamp
        var firstByte = Timestamp.unset
    }
    struct Chunk {
        var request: PacketDescriptor
        var copies: [UInt16: Copy]
    }
    struct Repair {
        var range: Range<UInt64>
        /// Who sent the wrong bytes, if that is known.
        var blamed: UInt16?
        /// Who is asked for the right ones.
        var path: UInt16?
        var tried: Set<UInt16> = []
    }
    /// Set in the id of a request that is a repair; the rest is the block.
    static let repairFlag: UInt64 = 1 << 63

    let sources: [Source]
    let verifies: Bool
    var offer: Offer?
    var received = ByteRangeSet()
    var digests: DigestList?
    var repairs: [UInt64: Repair] = [:]
    var reports: [Report] = []
    /// Descriptors without bytes that wait for room in the output.
    var outbox: [PacketDescriptor] = []
    var failure: StageError?
    var isVerified = false
    var lastUp = Timestamp.zero
    var turn = 0
    private var isAnnounced = false
    private var check: BlockCheck?
    private var chunks: [UInt64: Chunk] = [:]
    private var wrongCounts: [UInt16: Int] = [:]
    /// Sources that have sent too many wrong blocks.
    private(set) var condemned: Set<UInt16> = []
    private static let wrongLimit = 3

    init(sources: [Source], verifies: Bool) {
        self.sources = sources
        self.verifies = verifies
    }

    /// Whether something is on its way, or cannot be called right yet.
    var isBusy: Bool {
        guard !isVerified else { return false }
        guard let offer else { return true }
        return !chunks.isEmpty || !repairs.isEmpty || (verifies && received.contiguousEnd == offer.byteCount)
    }

    // MARK: Offers

    /// A source offers an object: the first settles what it is, the others must offer the same.
    func take(_ offer: Offer, from path: UInt16, at now: Timestamp) {
        guard let agreed = self.offer else {
            self.offer = offer
            if verifies, offer.hasDigests {
                digests = DigestList(offer: offer)
                check = BlockCheck(byteCount: offer.byteCount)
            }
            return
        }
        guard !agreed.isSameObject(as: offer) else { return }
        reports.append(.source(SourceReport(.differentObject, path: path, at: now)))
        let first = sources.indices.first { UInt16($0) != path } ?? 0
        func words(_ offer: Offer) -> String { "\(offer.byteCount) bytes, SHA-256 \(hex(offer.digest.prefix(8)))…" }
        failure = StageError(
            .invalidInput,
            "sources '\(sources[first].name)' and '\(sources[Int(path)].name)' offer different objects: "
                + "\(words(agreed)) and \(words(offer))"
        )
    }

    /// Tells the others, once, how large the object is.
    func announceObject() {
        guard !isAnnounced, let offer else { return }
        isAnnounced = true
        reports.append(.object(byteCount: offer.byteCount))
    }

    // MARK: Chunks

    func ask(_ request: PacketDescriptor, at now: Timestamp) {
        var chunk = chunks[request.sequence] ?? Chunk(request: request, copies: [:])
        chunk.copies[request.path] = Copy(requested: now)
        chunks[request.sequence] = chunk
    }

    /// - Returns: Whether there was such a copy.
    func forget(_ id: UInt64, on path: UInt16) -> Bool {
        guard var chunk = chunks[id], chunk.copies.removeValue(forKey: path) != nil else { return false }
        chunks[id] = chunk.copies.isEmpty ? nil : chunk
        return true
    }

    /// A copy of a chunk, or a repair, will not come by this path.
    func fail(_ id: UInt64, on path: UInt16, at now: Timestamp) {
        if id & Self.repairFlag != 0 {
            let block = id & ~Self.repairFlag
            if repairs[block]?.path == path { repairs[block]?.path = nil }
            return
        }
        guard var chunk = chunks[id], chunk.copies.removeValue(forKey: path) != nil else { return }
        var request = chunk.request
        request.path = path
        chunks[id] = chunk.copies.isEmpty ? nil : chunk
        reports.append(.chunk(ChunkReport(.failed, of: request, at: now)))
    }

    /// Whether this path is still wanted for this chunk or repair.
    func wants(_ id: UInt64, from path: UInt16) -> Bool {
        if id & Self.repairFlag != 0 { return repairs[id & ~Self.repairFlag]?.path == path }
        return chunks[id]?.copies[path] != nil
    }

    /// The ranges of a request that have not come by anybody.
    func missing(_ id: UInt64) -> [Range<UInt64>] {
        if id & Self.repairFlag != 0 {
            return repairs[id & ~Self.repairFlag].map { received.missing(in: $0.range) } ?? []
        }
        return chunks[id].map { received.missing(in: $0.request.objectOffset..<$0.request.objectEnd) } ?? []
    }

    func completeChunk(_ id: UInt64, by path: UInt16, at now: Timestamp) {
        guard let chunk = chunks[id], let copy = chunk.copies[path] else { return }
        var done = chunk.request
        done.kind = .done
        done.path = path
        done.departed = copy.requested
        done.firstByte = copy.firstByte
        done.arrived = now
        chunks[id] = nil
        outbox.append(done)
        reports.append(.chunk(ChunkReport(.done, of: done, at: now)))
    }

    // MARK: Bytes

    /// What a piece that has just come is to be passed on as.
    ///
    /// - Returns: The descriptor, and how many of its bytes are new; `nil` if nobody asked for it.
    func describe(
        _ id: UInt64,
        from path: UInt16,
        offset: UInt64,
        byteCount: Int,
        at now: Timestamp
    ) -> (data: PacketDescriptor, new: UInt64)? {
        var data = PacketDescriptor(.data, sequence: id, objectOffset: offset, byteCount: UInt32(byteCount))
        if id & Self.repairFlag != 0 {
            guard repairs[id & ~Self.repairFlag] != nil else { return nil }
            // A repair belongs to whichever chunk it lies in; a chunk that is done will not be done again.
            data.sequence =
                chunks.values.first {
                    ($0.request.objectOffset..<$0.request.objectEnd).contains(offset)
                }?.request.sequence ?? 0
        } else if let chunk = chunks[id], var copy = chunk.copies[path] {
            data.departed = copy.requested
            if copy.firstByte == .unset {
                copy.firstByte = now
                chunks[id]?.copies[path] = copy
            }
        }
        let new = received.insert(offset..<offset + UInt64(byteCount))
        data.path = path
        data.arrived = now
        data.isDuplicate = new < UInt64(byteCount)
        return (data, new)
    }

    /// After bytes have come for a chunk or a repair: what is whole is done.
    ///
    /// - Returns: Whether the request needs nothing more.
    func settle(_ id: UInt64, by path: UInt16, at now: Timestamp) -> Bool {
        if id & Self.repairFlag != 0 {
            let block = id & ~Self.repairFlag
            guard let repair = repairs[block] else { return true }
            guard received.contains(repair.range) else { return false }
            repairs[block] = nil
            return true
        }
        guard let chunk = chunks[id] else { return true }
        guard received.contains(chunk.request.objectOffset..<chunk.request.objectEnd) else { return false }
        completeChunk(id, by: path, at: now)
        return true
    }

    /// Checks the blocks that new bytes make whole.
    func verify(_ bytes: RawSpan, at offset: UInt64, from path: UInt16, now: Timestamp) {
        guard let digests else { return }
        let wrong = check?.add(bytes, at: offset, from: path, digests: digests) ?? []
        if !wrong.isEmpty { blame(wrong, at: now) }
    }

    /// Takes an answer to a request for digests.
    func take(_ answer: BlocksAnswer, from path: UInt16, at now: Timestamp) {
        guard digests != nil else { return }
        if digests?.add(answer) == false {
            reports.append(.source(SourceReport(.protocolViolation, path: path, at: now)))
        }
        if let digests, digests.isWhole, let wrong = check?.judgeWaiting(digests) { blame(wrong, at: now) }
    }

    private func blame(_ wrong: [BlockCheck.WrongBlock], at now: Timestamp) {
        for one in wrong {
            for path in one.paths {
                reports.append(.source(SourceReport(.wrongBytes, path: path, at: now, detail: Int64(one.block))))
                wrongCounts[path, default: 0] += 1
                if wrongCounts[path, default: 0] == Self.wrongLimit { condemned.insert(path) }
            }
            guard !one.range.isEmpty else { continue }
            received.remove(one.range)
            repairs[one.block] = Repair(range: one.range, blamed: one.paths.first)
            var retract = PacketDescriptor(
                .retract,
                sequence: one.block,
                objectOffset: one.range.lowerBound,
                byteCount: UInt32(one.range.count)
            )
            retract.path = one.paths.first ?? 0
            retract.arrived = now
            outbox.append(retract)
        }
    }

    /// Moves what has no bytes to the output, as far as there is room.
    func passOn(into output: inout PacketBatch) {
        let count = min(outbox.count, output.freeCapacity)
        guard count > 0 else { return }
        for packet in outbox.prefix(count) { output.append(packet) }
        outbox.removeFirst(count)
    }

    /// Says once that everything is there and right.
    func announceIfComplete() {
        guard !isVerified, let offer, received.contiguousEnd == offer.byteCount, repairs.isEmpty, chunks.isEmpty else {
            return
        }
        if let check { guard check.isComplete else { return } }
        isVerified = true
        reports.append(.verified)
    }
}
