/// What one flow of a server has still to send: the ranges that were asked for, in order.
public struct FlowQueue: Sendable {
    /// The next thing to send.
    public enum Piece: Hashable, Sendable {
        case data(offset: UInt64, byteCount: UInt32)
        /// All ranges of a request have been sent.
        case done(request: UInt32)
    }

    private struct Pending: Sendable {
        var id: UInt32
        var ranges: [Range<UInt64>]
    }

    /// The requests that may wait at once.
    public static let requestLimit = 256
    private var pending: [Pending] = []

    public init() {}

    public var isEmpty: Bool { pending.isEmpty }
    /// Ranges that wait.
    public var requestCount: Int { pending.count }

    /// Adds a request.
    ///
    /// - Returns: Why not, if not.
    public mutating func add(_ request: RangeRequest, objectByteCount: UInt64) -> WireFailure.Code? {
        guard pending.count < Self.requestLimit else { return .busy }
        guard request.ranges.allSatisfy({ $0.upperBound <= objectByteCount }) else { return .badRange }
        pending.append(Pending(id: request.id, ranges: request.ranges.reversed()))
        return nil
    }

    /// Drops what is left of a request.
    public mutating func cancel(_ id: UInt32) { pending.removeAll { $0.id == id } }

    /// Takes the next piece, of at most so many bytes.
    public mutating func next(limit: UInt32) -> Piece? {
        guard !pending.isEmpty else { return nil }
        guard let range = pending[0].ranges.last else { return .done(request: pending.removeFirst().id) }
        let count = min(UInt64(limit), UInt64(range.count))
        let rest = range.lowerBound + count..<range.upperBound
        if rest.isEmpty {
            pending[0].ranges.removeLast()
        } else {
            pending[0].ranges[pending[0].ranges.count - 1] = rest
        }
        return .data(offset: range.lowerBound, byteCount: UInt32(count))
    }
}
