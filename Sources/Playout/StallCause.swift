public import PipelineCore

/// Why a stall began.
public enum StallCause: String, Sendable, CaseIterable {
    /// The source of the missing chunk sends, and too slowly.
    case slowSource = "slow_source"
    /// The source of the missing chunk is down, or has made no progress for the time of the suspect rule.
    case deadSource = "dead_source"
    /// Enough had come, but in the wrong order: whole chunks are held behind the hole.
    case reorder
    /// The missing chunk has been asked for, or not even that, and none of it has come yet.
    case requestLatency = "request_latency"
}

/// What is known of the chunk that is missing when a stall begins.
public struct MissingChunk: Sendable {
    public var chunk: UInt64
    /// The source it was asked of last.
    public var path: UInt16
    public var requested: Timestamp
    /// When some of it came; `.unset` if nothing has.
    public var firstByte: Timestamp

    public init(chunk: UInt64, path: UInt16, requested: Timestamp, firstByte: Timestamp = .unset) {
        self.chunk = chunk
        self.path = path
        self.requested = requested
        self.firstByte = firstByte
    }
}

/// A stall's cause, and what shows it.
public struct StallDiagnosis: Sendable {
    public var cause: StallCause
    /// What was missing; `nil` if nobody had been asked for it.
    public var missing: MissingChunk?
    /// Bytes, and whole chunks, that had come and lay behind the hole.
    public var heldByteCount: UInt64
    public var heldChunkCount: Int

    /// Names the cause of a stall from what is known when it begins.
    ///
    /// In this order: a dead source is one whatever else is true; whole chunks behind the hole mean that the bytes came
    /// fast enough for at least one chunk more, so their order is at fault; a chunk that nobody has been asked for, or of
    /// which nothing has come within twice its source's latency, is late for the time a request takes; what is left is a
    /// source that sends too slowly.
    ///
    /// - Parameters:
    ///   - missing: The chunk of the first byte that is not there, if somebody was asked for it.
    ///   - isSourceDead: Whether that source is down or suspect.
    ///   - latency: From a request to its first byte at that source, in nanoseconds, as far as it is known.
    ///   - now: When the stall began.
    public init(
        missing: MissingChunk?,
        isSourceDead: Bool,
        latency: Int64,
        heldByteCount: UInt64,
        heldChunkCount: Int,
        at now: Timestamp
    ) {
        self.missing = missing
        self.heldByteCount = heldByteCount
        self.heldChunkCount = heldChunkCount
        if isSourceDead {
            cause = .deadSource
        } else if heldChunkCount > 0 {
            cause = .reorder
        } else if let missing {
            let isAnswered = missing.firstByte != .unset && missing.firstByte <= now
            let age = now.nanoseconds - missing.requested.nanoseconds
            cause = !isAnswered && age <= 2 * latency ? .requestLatency : .slowSource
        } else {
            cause = .requestLatency
        }
    }
}
