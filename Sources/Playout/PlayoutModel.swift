public import PipelineCore

/// A player, as far as starvation goes: when it starts, stalls, goes on and ends.
///
/// Event driven and exact: there are no ticks. What is playable changes only when ``advance(to:playable:isComplete:)``
/// says so, and between two calls the player runs on what it had, so a stall begins at the nanosecond at which the
/// playhead reaches the end of what was there. Media that comes at that very nanosecond is in time.
///
/// Units: nanoseconds of the run's timeline and of media time.
public struct PlayoutModel: Sendable {
    /// What a player does.
    public struct Options: Hashable, Sendable {
        /// Media that must be there before play begins. Zero: anything that can be played.
        public var start: Int64
        /// Media ahead of the playhead that ends a stall. Zero: anything.
        public var resume: Int64
        /// The most that ``resume`` grows to; `nil`: it stays. It doubles with every stall after the first.
        public var mostResume: Int64?
        /// Media ahead of the playhead above which the player asks for no more; `nil` for no limit.
        public var maximumBuffer: Int64?

        public init(start: Int64, resume: Int64, mostResume: Int64? = nil, maximumBuffer: Int64? = nil) {
            self.start = start
            self.resume = resume
            self.mostResume = mostResume
            self.maximumBuffer = maximumBuffer
        }
    }

    /// A change of state.
    public struct Transition: Hashable, Sendable {
        public enum Kind: Sendable { case started, stalled, resumed, ended }
        public var kind: Kind
        public var time: Timestamp
        /// Where the playhead was.
        public var media: Int64

        public init(kind: Kind, time: Timestamp, media: Int64) {
            self.kind = kind
            self.time = time
            self.media = media
        }
    }

    public let options: Options
    public private(set) var state = PlaybackReport.State.startup
    /// Media that can be played, from the start of the movie.
    public private(set) var playable: Int64 = 0
    /// Whether the last of it is there.
    public private(set) var isComplete = false
    /// Every change of state, in order.
    public private(set) var transitions: [Transition] = []
    /// `max(A − τ)` over all media so far: when it was there less its media time. Play that begins no earlier never stalls.
    public private(set) var deliveryMargin = Int64.min
    /// How often media was taken back that had been played already.
    public private(set) var retractionsTooLate = 0
    /// While playing: the playhead was at `media` at `time`. Otherwise where it stands.
    private var anchor = (time: Timestamp.zero, media: Int64(0))
    private var last: Timestamp
    /// Media ahead that ends the stall that is, or the next.
    private var resume: Int64

    /// - Parameter pressed: When play was pressed.
    public init(_ options: Options, pressed: Timestamp = .zero) {
        self.options = options
        resume = options.resume
        last = pressed
        anchor.time = pressed
    }

    /// Where the playhead is at a time not before the last one that the model has seen.
    public func playhead(at now: Timestamp) -> Int64 {
        guard state == .playing else { return anchor.media }
        return min(playable, anchor.media + (now.nanoseconds - anchor.time.nanoseconds))
    }

    /// Media ahead of the playhead.
    public func bufferLevel(at now: Timestamp) -> Int64 { playable - playhead(at: now) }

    /// Whether the player wants more than it has.
    public func wantsMore(at now: Timestamp) -> Bool {
        options.maximumBuffer.map { bufferLevel(at: now) < $0 } ?? true
    }

    /// When the state changes if nothing more comes: the first nanosecond of a stall, or the end.
    public var nextChange: Timestamp? {
        guard state == .playing else { return nil }
        let end = Timestamp(nanoseconds: anchor.time.nanoseconds + playable - anchor.media)
        return isComplete ? end : Timestamp(nanoseconds: end.nanoseconds + 1)
    }

    /// Moves time on, and says what can be played from now on.
    ///
    /// - Parameters:
    ///   - now: Not before the last call's.
    ///   - playable: May be less than before, when bytes turned out wrong; never less than has been played.
    ///   - isComplete: Whether the movie ends there.
    public mutating func advance(to now: Timestamp, playable newPlayable: Int64, isComplete newComplete: Bool) {
        precondition(now >= last, "time goes forward")
        run(to: now)
        last = now
        if newPlayable > playable {
            deliveryMargin = max(deliveryMargin, now.nanoseconds - playable)
            playable = newPlayable
        } else if newPlayable < playable {
            let played = playhead(at: now)
            if newPlayable < played { retractionsTooLate += 1 }
            playable = max(newPlayable, played)
        }
        isComplete = newComplete
        switch state {
        case .startup:
            let isEnough = playable > 0 && playable >= options.start
            if isEnough || isComplete { change(to: .playing, .started, at: now, media: 0) }
        case .stalled:
            let ahead = playable - anchor.media
            if ahead > 0, ahead >= resume || isComplete {
                if let most = options.mostResume { resume = min(most, resume * 2) }
                change(to: .playing, .resumed, at: now, media: anchor.media)
            } else if isComplete, ahead <= 0 {
                change(to: .ended, .ended, at: now, media: playable)
            }
        case .playing, .ended: break
        }
        if state == .playing, isComplete { run(to: now) }
    }

    /// Plays what there is to its end: nothing more will come.
    ///
    /// - Returns: When it ended, if the movie was complete; otherwise `nil`, and the state is that at `now`.
    public mutating func playOut(from now: Timestamp) -> Timestamp? {
        run(to: now)
        last = max(last, now)
        guard isComplete, state == .playing, let end = nextChange else {
            return state == .ended ? transitions.last?.time : nil
        }
        change(to: .ended, .ended, at: end, media: playable)
        return end
    }

    /// Runs on what was there.
    private mutating func run(to now: Timestamp) {
        guard state == .playing else { return }
        let end = Timestamp(nanoseconds: anchor.time.nanoseconds + playable - anchor.media)
        if isComplete, end <= now {
            change(to: .ended, .ended, at: end, media: playable)
        } else if !isComplete, end < now {
            change(to: .stalled, .stalled, at: end, media: playable)
        }
    }

    private mutating func change(
        to state: PlaybackReport.State,
        _ kind: Transition.Kind,
        at time: Timestamp,
        media: Int64
    ) {
        self.state = state
        anchor = (time, media)
        transitions.append(Transition(kind: kind, time: time, media: media))
    }
}

/// The thresholds of players that people use, read from their sources.
public enum PlayerPreset: String, OptionChoice {
    case media3
    case shaka
    case dashJS = "dash_js"
    case hlsJS = "hls_js"
    case bitmovinAndroid = "bitmovin_android"
    case mpv
    /// Chromium's own player of one file over HTTP, measured with `tools/player-check`: what ends a stall doubles with
    /// each, and bytes count in whole blocks of 32 KiB.
    case chromium
    /// One chunk to start and to resume, at most 25 s ahead, as the Sabre simulator has it.
    case sabre
    /// At most 60 s ahead, as Pensieve's environment has it.
    case pensieve
    /// Starts and resumes with anything, without a limit.
    case eager

    /// Bytes that the player takes at once from its connection: what is short of a whole number of them is not there yet.
    public var blockByteCount: UInt64 { self == .chromium ? 32_768 : 1 }

    public var options: PlayoutModel.Options {
        func seconds(_ start: Double, _ resume: Double, _ maximum: Int64?) -> PlayoutModel.Options {
            PlayoutModel.Options(
                start: Int64(start * 1e9),
                resume: Int64(resume * 1e9),
                maximumBuffer: maximum.map { $0 * 1_000_000_000 }
            )
        }
        return switch self {
        case .media3: seconds(1, 2, 50)
        case .shaka: seconds(0, 0, 10)
        case .dashJS: seconds(0, 0, 18)
        case .hlsJS: seconds(0, 0, 30)
        case .bitmovinAndroid: seconds(2.5, 2.5, 40)
        case .mpv: seconds(0, 1, nil)
        case .chromium:
            PlayoutModel.Options(start: 200_000_000, resume: 400_000_000, mostResume: 3_000_000_000)
        case .sabre: seconds(0, 0, 25)
        case .pensieve: seconds(0, 0, 60)
        case .eager: seconds(0, 0, nil)
        }
    }
}
