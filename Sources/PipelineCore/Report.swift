/// The only thing that flows back, and sideways: what one stage of a lane tells the others.
///
/// Fixed cases, trivially copyable. The lane hands every report to each stage that is a ``Learner``, in the order the
/// reports were made, and to the lane's observers.
public enum Report: Sendable, BitwiseCopyable {
    /// How a path is doing: sent at progress, and when a path changes its state.
    case path(PathReport)
    /// Where the player is.
    case playback(PlaybackReport)
    /// A chunk was given to a path, came whole, failed, or was cancelled.
    case chunk(ChunkReport)
    /// A source came up, went away, or did something that has a name.
    case source(SourceReport)
    /// The object's size is known: the capture can begin to ask for it.
    case object(byteCount: UInt64)
    /// Every byte of the object has come and its digests are right, as far as they were asked for.
    case verified
    /// The player cannot go on without the bytes at this offset: an index at the end of the file.
    case wanted(objectOffset: UInt64)
    /// The number of bytes that a server has put on its way to `stream`, so that the capture may hand on more.
    case sent(stream: UInt32, byteCount: UInt64)
}

/// How one path is doing, as the receiving side sees it. Units: bytes, nanoseconds.
public struct PathReport: Sendable, BitwiseCopyable {
    /// The path: an index into ``StageContext/sources``.
    public var path: UInt16
    /// When this was true.
    public var time: Timestamp
    /// Payload bytes delivered since the run began, copies included.
    public var deliveredByteCount: UInt64
    /// Bytes asked for and not come yet.
    public var outstandingByteCount: UInt64
    /// Requests asked for and not complete yet.
    public var outstandingRequestCount: UInt32
    /// The delivery rate in bits a second while something was outstanding, smoothed; 0 while unknown.
    public var rate: Double
    /// From a request to its first byte when nothing else was outstanding, smoothed; 0 while unknown.
    public var latency: Int64
    /// When a useful amount last came: the age of progress is what a path is judged by, never its round trip alone.
    public var lastProgress: Timestamp

    public init(
        path: UInt16,
        time: Timestamp,
        deliveredByteCount: UInt64,
        outstandingByteCount: UInt64,
        outstandingRequestCount: UInt32,
        rate: Double,
        latency: Int64,
        lastProgress: Timestamp
    ) {
        self.path = path
        self.time = time
        self.deliveredByteCount = deliveredByteCount
        self.outstandingByteCount = outstandingByteCount
        self.outstandingRequestCount = outstandingRequestCount
        self.rate = rate
        self.latency = latency
        self.lastProgress = lastProgress
    }
}

/// The state of a playout buffer, for the capture's window and for schedulers.
public struct PlaybackReport: Sendable, BitwiseCopyable {
    /// What a player is doing.
    public enum State: UInt8, Sendable, BitwiseCopyable, CaseIterable {
        /// Play was pressed, the first frame is not shown yet. May become `playing`.
        case startup
        /// The playhead moves. May become `stalled` or `ended`.
        case playing
        /// Stopped for lack of media (rebuffering). May become `playing`.
        case stalled
        /// The last frame was shown.
        case ended
    }
    /// When this was true.
    public var time: Timestamp
    public var state: State
    /// Media time of the playhead, in nanoseconds from the start of the movie.
    public var playhead: Int64
    /// Media held and not yet played, in nanoseconds (the buffer level).
    public var bufferLevel: Int64
    /// The bytes of the object, from its start, that the playhead has used.
    public var playedByteCount: UInt64
    /// The average rate of the movie in bits a second, as far as it is known; 0 if not.
    public var bitRate: Double
    /// Whether the buffer has room: a player with a full one asks for nothing.
    public var wantsMore: Bool

    public init(
        time: Timestamp,
        state: State,
        playhead: Int64,
        bufferLevel: Int64,
        playedByteCount: UInt64,
        bitRate: Double,
        wantsMore: Bool
    ) {
        self.time = time
        self.state = state
        self.playhead = playhead
        self.bufferLevel = bufferLevel
        self.playedByteCount = playedByteCount
        self.bitRate = bitRate
        self.wantsMore = wantsMore
    }
}

/// One step in the life of one copy of a chunk.
public struct ChunkReport: Sendable, BitwiseCopyable {
    public enum Step: UInt8, Sendable, BitwiseCopyable {
        /// The scheduler gave the chunk to a path.
        case assigned
        /// … gave a second copy of it to another path.
        case hedged
        /// The first byte came.
        case begun
        /// The chunk came whole by this path.
        case done
        /// This copy will not come; the chunk must be asked for again.
        case failed
        /// This copy is not wanted any more.
        case cancelled
    }
    public var step: Step
    public var chunk: UInt64
    public var path: UInt16
    public var time: Timestamp
    public var objectOffset: UInt64
    public var byteCount: UInt32
    /// When the chunk is due at the player; `.unset` if nobody knows.
    public var deadline: Timestamp

    public init(_ step: Step, of packet: PacketDescriptor, at time: Timestamp) {
        self.step = step
        self.chunk = packet.sequence
        self.path = packet.path
        self.time = time
        self.objectOffset = packet.objectOffset
        self.byteCount = packet.byteCount
        self.deadline = packet.deadline
    }
}

/// What happened to one source.
public struct SourceReport: Sendable, BitwiseCopyable {
    /// Names that appear in `events.jsonl`.
    public enum Event: UInt8, Sendable, BitwiseCopyable, CaseIterable {
        /// Connected, and the object offered.
        case up
        /// Nobody listens there (`detail`: errno).
        case refused
        /// No answer in time.
        case timedOut
        /// The connection was closed or reset by the other side (`detail`: errno, 0 for an orderly close).
        case closed
        /// No useful progress for the time of the suspect rule, with bytes outstanding (`detail`: its age in ns).
        case suspect
        /// Progress again after `suspect`.
        case recovered
        /// It sent bytes whose digest is wrong (`detail`: the block's index).
        case wrongBytes
        /// It sent something that the protocol does not allow.
        case protocolViolation
        /// It has no such object.
        case noSuchObject
        /// It offers another object under the same name.
        case differentObject
        /// Not used any more in this run.
        case abandoned
    }
    public var event: Event
    public var path: UInt16
    public var time: Timestamp
    public var detail: Int64

    public init(_ event: Event, path: UInt16, at time: Timestamp, detail: Int64 = 0) {
        self.event = event
        self.path = path
        self.time = time
        self.detail = detail
    }
}
