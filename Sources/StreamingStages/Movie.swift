public import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Emits the requests of one movie: its chunks in order, no further than a window past the playhead.
///
/// The size comes from a local `file`, from `size` or from `chunks`; with none of them from the first source that offers
/// the object.
public final class Movie: Capture, Learner, Reporter, Summarizing {
    public static let typeName = "movie"

    public struct Options: StageOptions {
        /// A local file whose size is taken.
        public var file: String?
        /// The size itself.
        public var size: ByteCount?
        /// The size as a number of whole chunks.
        public var chunks: Int?
        /// Bytes in a chunk; the last may have fewer.
        public var chunk: ByteCount
        /// How many chunks past the playhead may be asked for; 0 for no limit.
        public var window: Int
        /// Whether an index that stands at the end of the file is fetched before what is in between.
        public var tailFirst: Bool

        public init(from reader: inout OptionReader) {
            file = reader.optional("file")
            size = reader.optional("size")
            chunks = reader.optional("chunks")
            chunk = reader.read("chunk", default: .kibibytes(256), in: ByteCount(1024)...ByteCount(64 << 20))
            window = reader.read("window", default: 64, in: 0...1_000_000)
            tailFirst = reader.read("tail_first", default: true)
            if [file != nil, size != nil, chunks != nil].count(where: { $0 }) > 1 {
                reader.reject("size", "give one of 'file', 'size' and 'chunks'")
            }
            if let chunks, !(1...1_000_000_000).contains(chunks) {
                reader.reject("chunks", "'chunks' must be 1 to 1000000000, found \(chunks)")
            }
        }
    }

    private let options: Options
    private let context: StageContext
    private var plan: ChunkPlan?
    /// The size, until the others have been told.
    private var ownSize: UInt64?

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
        let chunk = options.chunk.bytes
        if let size = options.size { setSize(size.bytes) }
        if let chunks = options.chunks { setSize(UInt64(chunks) * chunk) }
    }

    public func start(at now: Timestamp) throws(StageError) {
        guard let file = options.file else { return }
        let path = context.resolve(file)
        var status = stat()
        guard unsafe stat(path, &status) == 0 else {
            throw StageError(.invalidInput, "the movie '\(path)' cannot be read", errno: errno)
        }
        setSize(UInt64(status.st_size))
    }

    private func setSize(_ byteCount: UInt64) {
        guard plan == nil else { return }
        ownSize = byteCount
        plan = ChunkPlan(
            byteCount: byteCount,
            chunk: options.chunk.bytes,
            window: options.window,
            tailFirst: options.tailFirst
        )
    }

    public func capture(into output: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        guard plan != nil else { return .whenFed }
        while !output.isFull {
            guard var request = plan?.next() else { return plan?.isFinished == true ? .finished : .whenFed }
            request.captured = now
            output.append(request)
        }
        return .immediately
    }

    public func learn(_ report: Report) {
        switch report {
        case .object(let byteCount):
            setSize(byteCount)
            ownSize = nil
        case .playback(let report): plan?.learn(report)
        case .chunk(let report): if report.step == .done { plan?.chunkIsDone() }
        case .wanted(let offset): plan?.want(from: offset)
        case .path, .source, .verified, .sent: break
        }
    }

    public func nextReport() -> Report? {
        defer { ownSize = nil }
        return ownSize.map { .object(byteCount: $0) }
    }

    public func summary() -> [(key: String, value: SummaryValue)] {
        guard let plan else { return [] }
        return [
            (key: "object_bytes", value: .integer(Int64(clamping: plan.byteCount))),
            (key: "chunk_bytes", value: .integer(Int64(clamping: plan.chunk))),
            (key: "chunks", value: .integer(Int64(clamping: plan.chunkCount))),
            (key: "requested_chunks", value: .integer(Int64(clamping: plan.emittedCount))),
        ]
    }
}

/// Which chunk comes next: in order, within the window, an index at the end of the file first.
struct ChunkPlan {
    let byteCount: UInt64
    let chunk: UInt64
    let chunkCount: UInt64
    private(set) var emittedCount: UInt64 = 0
    private let window: UInt64?
    private let tailFirst: Bool
    private var nextInOrder: UInt64 = 0
    /// Chunks from here to the end have been asked for already.
    private var tailBegin: UInt64
    private var nextInTail: UInt64
    private var playback: PlaybackReport?
    private var doneCount: UInt64 = 0
    /// The end of the window if the player waits with the whole window in its hands.
    private var extendedEnd: UInt64 = 0

    init(byteCount: UInt64, chunk: UInt64, window: Int, tailFirst: Bool) {
        self.byteCount = byteCount
        self.chunk = chunk
        self.window = window > 0 ? UInt64(window) : nil
        self.tailFirst = tailFirst
        chunkCount = byteCount / chunk + (byteCount.isMultiple(of: chunk) ? 0 : 1)
        tailBegin = chunkCount
        nextInTail = chunkCount
    }

    var isFinished: Bool { emittedCount == chunkCount }

    mutating func learn(_ report: PlaybackReport) { playback = report }

    mutating func chunkIsDone() { doneCount += 1 }

    /// Whether the player waits for more than the window holds: it would wait for ever.
    private var isStarved: Bool {
        guard doneCount == emittedCount, let playback else { return false }
        return playback.state == .startup || playback.state == .stalled
    }

    /// The bytes from `offset` to the end are needed before those in between.
    mutating func want(from offset: UInt64) {
        let first = offset / chunk
        guard tailFirst, tailBegin == chunkCount, first > nextInOrder, first < chunkCount else { return }
        tailBegin = first
        nextInTail = first
    }

    mutating func next() -> PacketDescriptor? {
        if nextInTail < chunkCount {
            defer { nextInTail += 1 }
            return request(nextInTail)
        }
        guard nextInOrder < tailBegin else { return nil }
        if let window {
            let playhead = (playback?.playedByteCount ?? 0) / chunk
            if nextInOrder >= playhead + window, isStarved { extendedEnd = nextInOrder + window }
            guard nextInOrder < max(playhead + window, extendedEnd) else { return nil }
        }
        if let playback, !playback.wantsMore { return nil }
        defer { nextInOrder += 1 }
        return request(nextInOrder)
    }

    private mutating func request(_ index: UInt64) -> PacketDescriptor {
        emittedCount += 1
        let offset = index * chunk
        var request = PacketDescriptor(
            .request,
            sequence: index,
            objectOffset: offset,
            byteCount: UInt32(min(chunk, byteCount - offset))
        )
        if let playback, playback.bitRate > 0, playback.state == .playing {
            // The playhead's own time is the anchor, so stalls so far are in it.
            let mediaTime = Double(offset) * 8e9 / playback.bitRate
            let ahead = mediaTime - Double(playback.playhead)
            if abs(ahead) < 1e18 {
                request.deadline = Timestamp(nanoseconds: playback.time.nanoseconds + Int64(ahead))
            }
        }
        return request
    }
}
