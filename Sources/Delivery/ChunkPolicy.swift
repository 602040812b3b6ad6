public import PipelineCore

/// Which source gets which chunk, and when: the whole of what makes one multi-source scheduler different from another.
///
/// A policy is a struct in a file of its own. It sees the chunks that wait and how every path is doing, and answers one
/// question at a time. What all policies share stands in ``ChunkBoard``: what is in flight, failed chunks that must be
/// asked for again, sources that make no progress, second copies. A policy never gives a chunk to a path that
/// ``PathView/isUsable`` denies.
///
/// Pure: no clock, no I/O, no randomness. The rules and their sources: the scheduler table of the design papers.
public protocol ChunkPolicy {
    associatedtype Options: StageOptions
    /// The name in a configuration file.
    static var typeName: String { get }
    init(options: Options, sources: [Source])

    /// The path that a chunk belongs to, for policies that decide when they first see it. Called once for each chunk,
    /// in order.
    mutating func prefer(_ chunk: PacketDescriptor) -> Int?

    /// The next chunk to ask for now, or when to be asked again. Called until it waits.
    mutating func next(_ view: BoardView, at now: Timestamp) -> PolicyChoice
}

extension ChunkPolicy {
    public mutating func prefer(_ chunk: PacketDescriptor) -> Int? { nil }

    /// Lower bounds of the sources that an option may name.
    public static func problems(of options: Options, with sources: [Source]) -> [String] { [] }
}

/// What a policy answers.
public enum PolicyChoice: Hashable, Sendable {
    /// Ask `path` for the chunk at this place among those that wait.
    case assign(waiting: Int, path: Int)
    /// Nothing now. Ask again when something changes, or at this time if there is one.
    case wait(until: Timestamp?)
}

/// A chunk that no source has been asked for yet.
public struct WaitingChunk: Sendable {
    /// What to ask for; its `sequence` is the chunk's index.
    public var request: PacketDescriptor
    /// What ``ChunkPolicy/prefer(_:)`` said of it.
    public var preferred: Int?
}

/// How one path is doing, as a policy sees it.
public struct PathView: Sendable {
    /// Whether new chunks may be given to it: connected, not suspect, not given up.
    public var isUsable = false
    /// Requests that are not complete.
    public var outstandingRequestCount = 0
    /// Their bytes that have not come.
    public var outstandingByteCount: UInt64 = 0
    /// What it delivers, in bits a second; `nil` while nobody knows.
    public var rate: Double?
    /// From a request to its first byte, in nanoseconds.
    public var latency: Int64 = 0
    /// When all that is outstanding will have come, by rate and latency; in the past if nothing is.
    public var drained = Timestamp(nanoseconds: 0)
    /// When the last request on it was complete; `.unset` if none was.
    public var lastDone = Timestamp.unset
}

/// Everything a policy may know.
public struct BoardView: Sendable {
    /// The chunks that wait, in order of their index.
    public var waiting: [WaitingChunk] = []
    /// The paths, by index.
    public var paths: [PathView] = []

    /// Whether any request is not complete.
    public var isAnythingOutstanding: Bool { paths.contains { $0.outstandingRequestCount > 0 } }

    /// `path` if it can be used, else the next one after it that can; `nil` if none can.
    public func usable(from path: Int) -> Int? {
        for step in 0..<paths.count {
            let candidate = (path + step) % paths.count
            if paths[candidate].isUsable { return candidate }
        }
        return nil
    }

    /// When a chunk of `byteCount` bytes would have come by `path` if it were asked for as soon as `depth` allows.
    ///
    /// `E = max(now, drained) + latency + bytes ÷ rate` with one request outstanding at a time; with more, the latency
    /// overlaps what is still on its way: `E = max(now + latency, drained) + bytes ÷ rate`. `nil` if the rate is unknown.
    public func expectedArrival(
        of byteCount: UInt32,
        by path: Int,
        drained: Timestamp,
        depth: Int,
        at now: Timestamp
    ) -> Timestamp? {
        let view = paths[path]
        guard let rate = view.rate, rate > 0 else { return nil }
        let service = Int64(min((Double(byteCount) * 8e9 / rate).rounded(), 9e17))
        let start =
            depth == 1
            ? max(now.nanoseconds, drained.nanoseconds) + view.latency
            : max(now.nanoseconds + view.latency, drained.nanoseconds)
        return Timestamp(nanoseconds: start + service)
    }

    /// The first waiting chunk whose preferred path has room for it: what policies do that decide in advance.
    ///
    /// A chunk whose path cannot be used goes to the next that can.
    ///
    /// - Parameter mayUse: Further conditions on a path.
    public func nextPreferred(depth: Int, where mayUse: (Int) -> Bool = { _ in true }) -> PolicyChoice {
        var hasRoom = paths.map { $0.isUsable && $0.outstandingRequestCount < depth }
        for path in hasRoom.indices where hasRoom[path] { hasRoom[path] = mayUse(path) }
        guard hasRoom.contains(true) else { return .wait(until: nil) }
        for (index, chunk) in waiting.enumerated() {
            guard let path = usable(from: chunk.preferred ?? 0) else { break }
            if hasRoom[path] { return .assign(waiting: index, path: path) }
        }
        return .wait(until: nil)
    }
}
