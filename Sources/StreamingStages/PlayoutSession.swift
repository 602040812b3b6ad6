import PipelineCore
import Playout

/// What the `playout` sink knows and does, without its files: the bytes that came, the map, the player, the causes.
struct PlayoutSession {
    /// Where the map from bytes to media comes from.
    enum Mapping {
        case constantBitRate(BitRate, unit: UInt64)
        /// The movie's own index, found in its bytes.
        case index
    }

    private(set) var model: PlayoutModel
    private(set) var received = ByteRangeSet()
    /// Grows whenever something that is logged has changed.
    private(set) var changeCount: UInt64 = 0
    private let mapping: Mapping
    private let assumedDuration: Int64
    private let blockByteCount: UInt64
    private var map: MovieMap?
    private var isGuess = false
    private var builder: MovieMapBuilder?
    private var builderVersion = 0
    private var objectByteCount: UInt64?
    private var wantedOffset: UInt64?
    private var lastWanted: UInt64?

    private struct SourceTally {
        var byteCount: UInt64 = 0
        var duplicateByteCount: UInt64 = 0
        var chunkCount: Int64 = 0
        var latency: Int64 = 0
        var isDead = false
    }
    private var sources: [SourceTally]
    /// Chunks that have been asked for and are not behind the prefix yet, by index.
    private var asked: [UInt64: (range: Range<UInt64>, missing: MissingChunk)] = [:]
    /// Whole chunks behind the first hole, by their offset.
    private var held: [UInt64: UInt64] = [:]
    /// The offsets of the chunks that have just come, and the prefix at which both tables were last looked through.
    private var newlyHeld: [UInt64] = []
    private var notedPrefix: UInt64?
    private var heldHighWater = (chunks: 0, bytes: UInt64(0))
    private var diagnoses: [StallDiagnosis] = []
    private var seenTransitions = 0
    private var diagnosedTransitions = 0
    private var lastArrival = Timestamp.zero
    /// `∫ prefix dt` in byte nanoseconds, and where it stands.
    private var prefixArea = 0.0
    private var prefixSince = Timestamp.zero
    private var isEnded = false
    private var endTime = Timestamp.zero

    /// - Parameter blockByteCount: Bytes that the player takes at once; what is short of a whole number is not there yet.
    init(
        player: PlayoutModel.Options,
        map mapping: Mapping,
        assumedDuration: Int64,
        sourceCount: Int,
        blockByteCount: UInt64 = 1
    ) {
        self.blockByteCount = blockByteCount
        model = PlayoutModel(player)
        self.mapping = mapping
        self.assumedDuration = assumedDuration
        sources = Array(repeating: SourceTally(), count: sourceCount)
    }

    /// Whether nothing can change any more.
    var isFinished: Bool { model.isComplete || model.state == .ended }

    // MARK: What comes

    /// What the bytes that are there would play, in nanoseconds: the model's, but for the part of a block.
    var playable: Int64 {
        blockByteCount == 1 ? model.playable : max(model.playable, map?.playable(prefix: received.contiguousEnd) ?? 0)
    }

    mutating func setMap(_ map: MovieMap) {
        self.map = map
        if objectByteCount == nil { setObject(map.byteCount) }
    }

    private mutating func setObject(_ byteCount: UInt64) {
        guard objectByteCount == nil else { return }
        objectByteCount = byteCount
        guard map == nil else { return }
        switch mapping {
        case .constantBitRate(let rate, let unit):
            map = .constantBitRate(byteCount: byteCount, bitsPerSecond: rate.bitsPerSecond, unit: unit)
        case .index:
            builder = MovieMapBuilder(objectByteCount: byteCount)
        }
    }

    mutating func receive(_ data: PacketDescriptor, bytes: RawSpan, at now: Timestamp) {
        let before = received.contiguousEnd
        prefixArea += Double(before) * Double(now.nanoseconds - prefixSince.nanoseconds)
        prefixSince = now
        let new = received.insert(data.objectOffset..<data.objectEnd)
        let path = Int(data.path)
        sources[path].byteCount += new
        sources[path].duplicateByteCount += UInt64(data.byteCount) - new
        sources[path].isDead = false
        if new > 0 { lastArrival = max(lastArrival, data.arrived) }
        if var known = asked[data.sequence], known.missing.firstByte == .unset {
            known.missing.firstByte = data.arrived
            asked[data.sequence] = known
        }
        if bytes.byteCount > 0, builder != nil { feed(data.objectOffset, bytes) }
        changeCount += 1
    }

    private mutating func feed(_ offset: UInt64, _ bytes: RawSpan) {
        builder?.receive(offset: offset, bytes: bytes)
        guard let version = builder?.version, version != builderVersion else { return }
        builderVersion = version
        switch builder?.state {
        case .known(let known): map = known
        case .notMP4:
            // Any file can be fetched; it is then played at a guessed constant rate.
            if let objectByteCount {
                map = .constantBitRate(byteCount: objectByteCount, duration: assumedDuration)
                isGuess = true
            }
            builder = nil
        case .incomplete, nil: break
        }
        if let wanted = builder?.wantedOffset, wanted != lastWanted {
            lastWanted = wanted
            wantedOffset = wanted
        }
    }

    mutating func takeWantedOffset() -> UInt64? {
        defer { wantedOffset = nil }
        return wantedOffset
    }

    mutating func finishChunk(_ done: PacketDescriptor) {
        sources[Int(done.path)].chunkCount += 1
        held[done.objectOffset] = UInt64(done.byteCount)
        newlyHeld.append(done.objectOffset)
    }

    mutating func retract(_ packet: PacketDescriptor, at now: Timestamp) {
        let taken = received.remove(packet.objectOffset..<packet.objectEnd)
        let path = Int(packet.path)
        sources[path].byteCount -= min(taken, sources[path].byteCount)
        held = held.filter { $0.key + $0.value <= packet.objectOffset || $0.key >= packet.objectEnd }
        changeCount += 1
    }

    mutating func learn(_ report: Report) {
        switch report {
        case .object(let byteCount): setObject(byteCount)
        case .path(let report) where Int(report.path) < sources.count:
            sources[Int(report.path)].latency = report.latency
        case .chunk(let report):
            guard report.step == .assigned || report.step == .hedged else { break }
            let range = report.objectOffset..<report.objectOffset + UInt64(report.byteCount)
            asked[report.chunk] = (
                range, MissingChunk(chunk: report.chunk, path: report.path, requested: report.time)
            )
        case .source(let report) where Int(report.path) < sources.count:
            switch report.event {
            case .up, .recovered: sources[Int(report.path)].isDead = false
            case .refused, .timedOut, .closed, .suspect, .noSuchObject, .differentObject, .abandoned:
                sources[Int(report.path)].isDead = true
            case .wrongBytes, .protocolViolation: break
            }
        default: break
        }
    }

    // MARK: The player

    mutating func advance(to now: Timestamp) {
        let prefix = received.contiguousEnd
        let isWhole = objectByteCount.map { prefix >= $0 } ?? false
        let blocks = prefix / blockByteCount * blockByteCount
        let playable = map.map { isWhole ? $0.duration : $0.playable(prefix: blocks) } ?? 0
        let count = model.transitions.count
        model.advance(to: now, playable: max(0, playable), isComplete: isWhole && map != nil)
        diagnose()
        if model.transitions.count != count { changeCount += 1 }
        noteHeld(prefix)
    }

    /// Forgets what the prefix has reached, and measures what is held behind the hole.
    private mutating func noteHeld(_ prefix: UInt64) {
        if prefix != notedPrefix {
            notedPrefix = prefix
            for (offset, count) in held where offset + count <= prefix { held[offset] = nil }
            for (chunk, known) in asked where known.range.upperBound <= prefix { asked[chunk] = nil }
        } else {
            for offset in newlyHeld { if let count = held[offset], offset + count <= prefix { held[offset] = nil } }
        }
        newlyHeld.removeAll(keepingCapacity: true)
        heldHighWater.chunks = max(heldHighWater.chunks, held.count)
        heldHighWater.bytes = max(heldHighWater.bytes, received.byteCountBehindHole)
    }

    /// Names the cause of every stall that has just begun, from what was known before the bytes that ended it.
    private mutating func diagnose() {
        while diagnosedTransitions < model.transitions.count {
            let transition = model.transitions[diagnosedTransitions]
            diagnosedTransitions += 1
            guard transition.kind == .stalled else { continue }
            let missing = hole?.missing
            diagnoses.append(
                StallDiagnosis(
                    missing: missing,
                    isSourceDead: missing.map { sources[Int($0.path)].isDead } ?? false,
                    latency: missing.map { sources[Int($0.path)].latency } ?? 0,
                    heldByteCount: received.byteCountBehindHole,
                    heldChunkCount: held.count,
                    at: transition.time
                )
            )
        }
    }

    private var hole: (range: Range<UInt64>, missing: MissingChunk)? {
        let prefix = received.contiguousEnd
        return asked.values.first { $0.range.contains(prefix) }
    }

    mutating func takeNewTransitions() -> ArraySlice<PlayoutModel.Transition> {
        defer { seenTransitions = model.transitions.count }
        return model.transitions[seenTransitions...]
    }

    mutating func end(at now: Timestamp) {
        guard !isEnded else { return }
        isEnded = true
        endTime = now
        prefixArea +=
            Double(received.contiguousEnd) * Double(max(0, min(now, lastArrival).nanoseconds - prefixSince.nanoseconds))
        if let end = model.playOut(from: now) { endTime = max(now, end) }
        diagnose()
    }

    // MARK: What is told

    func report(at now: Timestamp) -> PlaybackReport {
        report(state: model.state, at: now, playhead: model.playhead(at: now), now: now)
    }

    func report(state: PlaybackReport.State, at time: Timestamp, playhead: Int64, now: Timestamp) -> PlaybackReport {
        PlaybackReport(
            time: time,
            state: state,
            playhead: playhead,
            bufferLevel: model.playable - playhead,
            playedByteCount: map?.bytesNeeded(for: playhead) ?? 0,
            bitRate: map?.averageBitRate
                ?? objectByteCount.map { Double($0) * 8e9 / Double(assumedDuration) } ?? 0,
            wantsMore: model.wantsMore(at: now)
        )
    }

    func summary(sourceNames: [String]) -> [(key: String, value: SummaryValue)] {
        let playback = PlaybackSummary(
            model.transitions,
            pressed: .zero,
            end: endTime,
            mediaPlayed: model.playhead(at: endTime)
        )
        let unique = sources.reduce(0) { $0 + $1.byteCount }
        let duplicates = sources.reduce(0) { $0 + $1.duplicateByteCount }
        let seconds = Double(lastArrival.nanoseconds) / 1e9
        let stalls = zip(playback.stalls, diagnoses).map { stall, why in
            SummaryValue.object([
                (key: "begin_ns", value: .integer(stall.begin.nanoseconds)),
                (key: "duration_ns", value: .integer(stall.duration)),
                (key: "media_ns", value: .integer(stall.media)),
                (key: "cause", value: .text(why.cause.rawValue)),
                (key: "chunk", value: why.missing.map { .integer(Int64(clamping: $0.chunk)) } ?? .null),
                (key: "source", value: why.missing.map { .text(sourceNames[Int($0.path)]) } ?? .null),
                (key: "held_bytes", value: .integer(Int64(clamping: why.heldByteCount))),
                (key: "held_chunks", value: .integer(Int64(why.heldChunkCount))),
            ])
        }
        let shares = zip(sourceNames, sources).map { name, source in
            SummaryValue.object([
                (key: "name", value: .text(name)), (key: "bytes", value: .integer(Int64(clamping: source.byteCount))),
                (key: "chunks", value: .integer(source.chunkCount)),
                (key: "share", value: .number(unique > 0 ? Double(source.byteCount) / Double(unique) : 0)),
                (key: "duplicate_bytes", value: .integer(Int64(clamping: source.duplicateByteCount))),
            ])
        }
        let mapName: String =
            switch mapping {
            case .constantBitRate: "constant_bit_rate"
            case .index: map == nil ? "none" : isGuess ? "guess" : "mp4"
            }
        return [
            (key: "state", value: .text("\(model.state)")),
            (key: "map", value: .text(mapName)),
            (key: "startup_delay_ns", value: .integer(playback.startupDelay)),
            (key: "stall_count", value: .integer(Int64(playback.stalls.count))),
            (key: "stall_total_ns", value: .integer(playback.totalStallTime)),
            (key: "stall_longest_ns", value: .integer(playback.longestStall)),
            (key: "stall_mean_ns", value: .number(playback.meanStall)),
            (key: "dmin_ns", value: model.deliveryMargin == .min ? .null : .integer(model.deliveryMargin)),
            (key: "watched_ns", value: .integer(playback.watchedTime)),
            (key: "media_ns", value: .integer(map?.duration ?? 0)),
            (key: "media_played_ns", value: .integer(playback.mediaPlayed)),
            (key: "play_end_ns", value: playback.playEnd.map { .integer($0.nanoseconds) } ?? .null),
            (key: "finish_ns", value: .integer(lastArrival.nanoseconds)),
            (key: "cta2066_stalled_percent", value: .number(playback.cta2066StalledPercent)),
            (key: "puffer_stall_ratio", value: .number(playback.pufferStallRatio)),
            (key: "sabre_rebuffer_ratio", value: .number(playback.sabreRebufferRatio)),
            (key: "pensieve_rebuffer_ns", value: .integer(playback.pensieveRebufferTime)),
            (key: "stall_over_media_ratio", value: .number(playback.stallOverMediaRatio)),
            (key: "stalls_per_minute", value: .number(playback.stallsPerMinute)),
            (key: "mos_hossfeld_2011", value: .number(playback.hossfeldMOS)),
            (key: "mos_mok_2011", value: .number(playback.mokMOS)),
            (key: "reorder_high_water_chunks", value: .integer(Int64(heldHighWater.chunks))),
            (key: "reorder_high_water_bytes", value: .integer(Int64(clamping: heldHighWater.bytes))),
            (key: "bytes", value: .integer(Int64(clamping: unique))),
            (key: "contiguous_bytes", value: .integer(Int64(clamping: received.contiguousEnd))),
            (key: "duplicate_bytes", value: .integer(Int64(clamping: duplicates))),
            (key: "goodput_bps", value: .number(seconds > 0 ? Double(unique) * 8 / seconds : 0)),
            // The constant rate, delivered in order, under which the prefix would have been as large on average.
            (
                key: "prefix_goodput_bps",
                value: .number(seconds > 0 ? 2 * prefixArea / 1e9 / (seconds * seconds) * 8 : 0)
            ),
            (key: "retractions_too_late", value: .integer(Int64(model.retractionsTooLate))),
            (key: "stalls", value: .list(stalls)),
            (key: "sources", value: .list(shares)),
        ]
    }
}
