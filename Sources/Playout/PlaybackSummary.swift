public import PipelineCore

/// How a session went, in the numbers of the field, each under the name of its definition.
///
/// Units: nanoseconds unless the name says otherwise.
public struct PlaybackSummary: Sendable {
    /// One interruption.
    public struct Stall: Hashable, Sendable {
        public var begin: Timestamp
        public var duration: Int64
        /// Where the playhead stood.
        public var media: Int64
    }

    /// From play pressed to the first frame; to the end of the session if there was none.
    public var startupDelay: Int64
    public var stalls: [Stall]
    /// Media that was played.
    public var mediaPlayed: Int64
    /// Wall time from play pressed to the end of play or of the session (CTA-2066 watchedTime; nobody pauses here).
    public var watchedTime: Int64
    /// When the last frame was shown; `nil` if it was not.
    public var playEnd: Timestamp?

    /// - Parameters:
    ///   - transitions: The model's, in order.
    ///   - pressed: When play was pressed.
    ///   - end: When the session ended, if play did not.
    ///   - mediaPlayed: Where the playhead stood then.
    public init(_ transitions: [PlayoutModel.Transition], pressed: Timestamp, end: Timestamp, mediaPlayed: Int64) {
        playEnd = transitions.last { $0.kind == .ended }?.time
        let sessionEnd = playEnd ?? end
        startupDelay =
            (transitions.first { $0.kind == .started }?.time ?? sessionEnd).nanoseconds - pressed.nanoseconds
        watchedTime = sessionEnd.nanoseconds - pressed.nanoseconds
        self.mediaPlayed = mediaPlayed
        stalls = []
        var open: PlayoutModel.Transition?
        for transition in transitions {
            switch transition.kind {
            case .stalled: open = transition
            case .resumed, .ended:
                if let stall = open { close(stall, at: transition.time) }
                open = nil
            case .started: break
            }
        }
        if let open { close(open, at: sessionEnd) }
    }

    private mutating func close(_ stall: PlayoutModel.Transition, at time: Timestamp) {
        let duration = time.nanoseconds - stall.time.nanoseconds
        stalls.append(Stall(begin: stall.time, duration: duration, media: stall.media))
    }

    /// Total time stopped for lack of media, start-up not counted.
    public var totalStallTime: Int64 { stalls.reduce(0) { $0 + $1.duration } }
    public var longestStall: Int64 { stalls.map(\.duration).max() ?? 0 }
    public var meanStall: Double { stalls.isEmpty ? 0 : Double(totalStallTime) / Double(stalls.count) }

    /// CTA-2066: stalled time over watched time, in per cent; start-up is in the latter only.
    public var cta2066StalledPercent: Double { ratio(totalStallTime, watchedTime) * 100 }
    /// Puffer: start-up is in neither.
    public var pufferStallRatio: Double { ratio(totalStallTime, watchedTime - startupDelay) }
    /// Sabre: rebuffering over total play time, in which start-up is.
    public var sabreRebufferRatio: Double { ratio(totalStallTime, watchedTime) }
    /// Pensieve's environment counts the wait before the first frame as rebuffering.
    public var pensieveRebufferTime: Int64 { totalStallTime + startupDelay }
    /// ITU-T P.1203: stalled time over media time.
    public var stallOverMediaRatio: Double { ratio(totalStallTime, mediaPlayed) }
    /// Stalls in a minute of media.
    public var stallsPerMinute: Double { mediaPlayed > 0 ? Double(stalls.count) * 60e9 / Double(mediaPlayed) : 0 }

    /// Hoßfeld et al. 2011 (YouTube stalling): `3.5·exp(−(0.15·L + 0.19)·N) + 1.5` for N stalls of mean length L seconds.
    public var hossfeldMOS: Double {
        3.5 * exponential(-(0.15 * meanStall / 1e9 + 0.19) * Double(stalls.count)) + 1.5
    }

    /// Mok et al. 2011: `4.23 − 0.0672·Lti − 0.742·Lfr − 0.106·Ltr`, levels 0 to 3 of start-up (0, ≤ 1, ≤ 5, > 5 s),
    /// stall frequency (0, ≤ 0.02, ≤ 0.15, > 0.15 a second) and mean stall (0, ≤ 5, ≤ 10, > 10 s).
    public var mokMOS: Double {
        func level(_ value: Double, _ one: Double, _ two: Double) -> Double {
            value <= 0 ? 0 : value <= one ? 1 : value <= two ? 2 : 3
        }
        let frequency = mediaPlayed > 0 ? Double(stalls.count) * 1e9 / Double(mediaPlayed) : 0
        return 4.23 - 0.0672 * level(Double(startupDelay) / 1e9, 1, 5) - 0.742 * level(frequency, 0.02, 0.15)
            - 0.106 * level(meanStall / 1e9, 5, 10)
    }

    private func ratio(_ part: Int64, _ whole: Int64) -> Double { whole > 0 ? Double(part) / Double(whole) : 0 }
}
