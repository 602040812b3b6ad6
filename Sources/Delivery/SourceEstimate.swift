public import PipelineCore

/// What one source delivers, and how long it takes to begin: estimated from arrivals alone.
///
/// The rate is bytes over the time in which something was outstanding, so that a source that is not asked is not taken
/// for a slow one; smoothed with a time constant of a second. The latency is from a request to its first byte when
/// nothing else was outstanding, smoothed by 1/8. Progress is useful progress: at least 1 KiB since it was last noted, or
/// a whole chunk, so that a source that trickles is not taken for a live one.
public struct SourceEstimate: Sendable {
    /// Bits a second; 0 while unknown.
    public private(set) var rate = 0.0
    /// Nanoseconds; 0 while unknown.
    public private(set) var latency: Int64 = 0
    /// When a useful amount last came.
    public private(set) var lastProgress = Timestamp.unset

    /// Useful progress, in bytes.
    public static let usefulByteCount: UInt64 = 1_024
    /// The shortest time over which a rate is taken.
    public static let shortest: Int64 = 50_000_000
    private static let timeConstant = 1e9

    private var outstandingCount = 0
    private var probe: Timestamp?
    private var windowBegin = Timestamp.unset
    private var windowByteCount: UInt64 = 0
    private var sinceProgress: UInt64 = 0

    public init() {}

    /// A chunk was asked for.
    public mutating func requested(at now: Timestamp) {
        if outstandingCount == 0 {
            probe = now
            windowBegin = .unset
            lastProgress = max(lastProgress, now)
        }
        outstandingCount += 1
    }

    /// Bytes came.
    public mutating func received(_ byteCount: UInt64, at now: Timestamp) {
        if let probe {
            let sample = max(1, now.nanoseconds - probe.nanoseconds)
            latency = latency == 0 ? sample : latency + (sample - latency) / 8
            self.probe = nil
        }
        sinceProgress += byteCount
        if sinceProgress >= Self.usefulByteCount {
            sinceProgress = 0
            lastProgress = now
        }
        // The window begins with the first bytes: the time before them is latency.
        guard windowBegin != .unset else {
            windowBegin = now
            windowByteCount = 0
            return
        }
        windowByteCount += byteCount
        let span = now.nanoseconds - windowBegin.nanoseconds
        guard span >= Self.shortest else { return }
        let sample = Double(windowByteCount) * 8e9 / Double(span)
        let weight = rate == 0 ? 1 : min(1, Double(span) / (Self.timeConstant + Double(span)))
        rate += weight * (sample - rate)
        windowBegin = now
        windowByteCount = 0
    }

    /// A chunk has come whole.
    public mutating func completed(at now: Timestamp) {
        closed()
        sinceProgress = 0
        lastProgress = now
    }

    /// A request is not outstanding any more, for whatever reason.
    public mutating func closed() {
        outstandingCount = max(0, outstandingCount - 1)
        if outstandingCount == 0 {
            probe = nil
            windowBegin = .unset
        }
    }
}
