public import PipelineCore

/// One emulated path: a constant rate, served in order of request, and a constant latency before each answer.
///
/// The time of a byte is computed from the total served since the path was last idle, never by adding rounded times, so
/// it is within a nanosecond of the exact fraction however long the path has been busy. The latency of one request
/// overlaps the service of those before it.
public struct ConstantRateLink: Sendable {
    /// Bytes that arrive together.
    public struct Delivery: Hashable, Sendable {
        /// The request they answer.
        public var id: UInt64
        /// Where they begin in it.
        public var offset: UInt32
        public var byteCount: UInt32
        public var time: Timestamp
        /// Whether the request is complete with them.
        public var isLast: Bool
    }

    private struct Request {
        var id: UInt64
        var byteCount: UInt32
        var delivered: UInt32 = 0
        var ready: Timestamp
    }

    /// Bits a second.
    public let rate: BitRate
    /// From a request to its first byte, in nanoseconds.
    public let latency: Int64
    /// The most bytes in one delivery.
    public let pieceByteCount: UInt32
    private var requests: [Request] = []
    /// Since when the path has been busy without a pause, and what it has served since.
    private var busySince = Timestamp.zero
    private var servedByteCount: UInt64 = 0

    public init(rate: BitRate, latency: Duration, pieceByteCount: UInt32 = 65_536) {
        self.rate = rate
        self.latency = Timestamp.zero.advanced(by: latency).nanoseconds
        self.pieceByteCount = pieceByteCount
    }

    /// Requests not complete yet, and their bytes not delivered yet.
    public var outstandingRequestCount: Int { requests.count }
    public var outstandingByteCount: UInt64 { requests.reduce(0) { $0 + UInt64($1.byteCount - $1.delivered) } }

    /// Asks for `byteCount` bytes.
    public mutating func request(_ id: UInt64, byteCount: UInt32, at now: Timestamp) {
        requests.append(
            Request(id: id, byteCount: byteCount, ready: Timestamp(nanoseconds: now.nanoseconds + latency))
        )
        if requests.count == 1 { begin() }
    }

    /// Drops what is left of a request.
    public mutating func cancel(_ id: UInt64, at now: Timestamp) {
        guard let index = requests.firstIndex(where: { $0.id == id }) else { return }
        requests.remove(at: index)
        guard index == 0, !requests.isEmpty else { return }
        // The path turns to the next request at once.
        busySince = max(now, requests[0].ready)
        servedByteCount = 0
    }

    /// What arrives next, whenever that is.
    public var next: Delivery? {
        guard let request = requests.first else { return nil }
        let count = min(request.byteCount - request.delivered, pieceByteCount)
        let time = self.time(afterServing: servedByteCount + UInt64(count))
        return Delivery(
            id: request.id,
            offset: request.delivered,
            byteCount: count,
            time: time,
            isLast: request.delivered + count == request.byteCount
        )
    }

    /// Takes ``next`` as delivered.
    public mutating func deliver() {
        guard let delivery = next else { return }
        servedByteCount += UInt64(delivery.byteCount)
        requests[0].delivered += delivery.byteCount
        guard delivery.isLast else { return }
        requests.removeFirst()
        if !requests.isEmpty { begin() }
    }

    /// The first request is up: it goes on where the last ended, unless it is not ready by then.
    private mutating func begin() {
        guard requests[0].ready > time(afterServing: servedByteCount) else { return }
        busySince = requests[0].ready
        servedByteCount = 0
    }

    private func time(afterServing byteCount: UInt64) -> Timestamp {
        Timestamp(nanoseconds: busySince.nanoseconds &+ rate.nanoseconds(for: byteCount))
    }
}
