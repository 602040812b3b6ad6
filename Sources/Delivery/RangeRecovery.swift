public import PipelineCore

/// How a client learns that datagrams were lost, and when it asks again: a part that can be replaced.
public protocol LossRecovery {
    /// A request was sent.
    mutating func requested(_ id: UInt32, at now: Timestamp)
    /// Data came on the flow.
    mutating func heard(at now: Timestamp)
    /// The server says that it has answered a request to its end.
    mutating func finished(_ id: UInt32, at now: Timestamp)
    /// A request needs nothing more.
    mutating func closed(_ id: UInt32)
    /// The requests whose missing ranges are to be asked for again now.
    mutating func due(at now: Timestamp) -> [UInt32]
    /// When ``due(at:)`` is to be called next.
    var nextTimer: Timestamp? { get }
}

/// Asks again for what is missing after the server has said that it is done, or after it has been silent too long.
///
/// Silence is of the flow, not of a request: a server answers in order, so a request may wait behind another. The limit is
/// `max(100 ms, SRTT + 4·RTTVAR, 4 × gap)`, with SRTT and RTTVAR as in RFC 6298 from requests that found the flow idle,
/// and `gap` the smoothed time between arrivals, so that a slow pacer is no loss. It doubles with each silence, to 2 s at
/// most. After DONE a few milliseconds are left for datagrams that were overtaken.
public struct RangeRecovery: LossRecovery, Sendable {
    public static let reorderWait: Int64 = 5_000_000
    public static let shortest: Int64 = 100_000_000
    public static let longest: Int64 = 2_000_000_000

    private var outstanding: Set<UInt32> = []
    /// Requests that the server has finished, with when they are looked at.
    private var finishedAt: [UInt32: Timestamp] = [:]
    private var lastHeard = Timestamp.unset
    private var isBurst = false
    private var gap = 0.0
    private var roundTrip: (smoothed: Double, variation: Double)?
    private var probe: Timestamp?
    private var backoff: Int64 = 1

    public init() {}

    private var limit: Int64 {
        let roundTrip = roundTrip.map { $0.smoothed + 4 * $0.variation } ?? 300e6
        let base = max(Self.shortest, Int64(max(roundTrip, 4 * gap)))
        return min(Self.longest, base &* backoff)
    }

    public mutating func requested(_ id: UInt32, at now: Timestamp) {
        if outstanding.isEmpty {
            probe = now
            lastHeard = now
            isBurst = false
        }
        outstanding.insert(id)
        finishedAt[id] = nil
    }

    public mutating func heard(at now: Timestamp) {
        if let probe {
            let sample = Double(now.nanoseconds - probe.nanoseconds)
            if let known = roundTrip {
                let variation = 0.75 * known.variation + 0.25 * abs(known.smoothed - sample)
                roundTrip = (0.875 * known.smoothed + 0.125 * sample, variation)
            } else {
                roundTrip = (sample, sample / 2)
            }
            self.probe = nil
        } else if isBurst {
            gap += (Double(now.nanoseconds - lastHeard.nanoseconds) - gap) / 8
        }
        isBurst = true
        lastHeard = now
        backoff = 1
    }

    public mutating func finished(_ id: UInt32, at now: Timestamp) {
        guard outstanding.contains(id) else { return }
        finishedAt[id] = Timestamp(nanoseconds: now.nanoseconds + Self.reorderWait)
    }

    public mutating func closed(_ id: UInt32) {
        outstanding.remove(id)
        finishedAt[id] = nil
    }

    public mutating func due(at now: Timestamp) -> [UInt32] {
        var due = finishedAt.filter { $0.value <= now }.map(\.key)
        for id in due { finishedAt[id] = nil }
        if !outstanding.isEmpty, lastHeard.nanoseconds + limit <= now.nanoseconds {
            due = Array(outstanding)
            finishedAt.removeAll()
            lastHeard = now
            isBurst = false
            probe = nil
            backoff = min(backoff * 2, 64)
        }
        return due.sorted()
    }

    public var nextTimer: Timestamp? {
        guard !outstanding.isEmpty else { return nil }
        let silence = Timestamp(nanoseconds: lastHeard.nanoseconds + limit)
        return min(finishedAt.values.min() ?? silence, silence)
    }
}
