public import PipelineCore
import Synchronization

/// What a run is doing, for people who watch: written by the lane, read by whoever draws.
public final class ProgressBoard: Sendable {
    /// One source.
    public struct SourceState: Sendable {
        public var name: String
        public var byteCount: UInt64 = 0
        /// Bits a second, as the transport estimates it.
        public var rate = 0.0
        /// The last thing that happened to it.
        public var event: SourceReport.Event?
    }
    /// All of it, at one moment.
    public struct State: Sendable {
        public var now = Timestamp.zero
        public var objectByteCount: UInt64 = 0
        public var sources: [SourceState] = []
        public var playback: PlaybackReport?
        public var stallCount = 0
    }
    private let storage = Mutex(State())
    public init() {}

    public var state: State { storage.withLock { $0 } }
    func update(_ state: State) { storage.withLock { $0 = state } }
}

/// Copies what passes to a ``ProgressBoard``, a few times a second.
final class ProgressObserver: Observer {
    private let board: ProgressBoard
    private var state = ProgressBoard.State()
    private var published = Timestamp(nanoseconds: .min)

    init(_ board: ProgressBoard, sources: [Source]) {
        self.board = board
        state.sources = sources.map { ProgressBoard.SourceState(name: $0.name) }
    }

    func observe(_ batch: borrowing PacketBatch, from first: Int, at tap: Tap, now: Timestamp) {
        guard now.nanoseconds - 50_000_000 >= published.nanoseconds else { return }
        state.now = now
        published = now
        board.update(state)
    }

    func observe(_ report: Report) {
        switch report {
        case .path(let report) where Int(report.path) < state.sources.count:
            state.sources[Int(report.path)].byteCount = report.deliveredByteCount
            state.sources[Int(report.path)].rate = report.rate
        case .source(let report) where Int(report.path) < state.sources.count:
            state.sources[Int(report.path)].event = report.event
        case .playback(let report):
            if report.state == .stalled, state.playback?.state != .stalled { state.stallCount += 1 }
            state.playback = report
        case .object(let byteCount): state.objectByteCount = byteCount
        default: break
        }
    }

    func finish(at now: Timestamp) throws(StageError) {
        state.now = now
        board.update(state)
    }
}
