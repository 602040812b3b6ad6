import Synchronization

/// A value that a lane makes known to other threads, from time to time and whole.
public final class Published<Value: Sendable>: Sendable {
    private let stored: Mutex<Value>
    public init(_ value: Value) { stored = Mutex(value) }
    public var value: Value { stored.withLock { $0 } }
    public func publish(_ value: Value) { stored.withLock { $0 = value } }
}

/// A number that a lane makes known to other threads, as often as once a batch.
public final class PublishedCount: Sendable {
    private let stored = Atomic<Int64>(0)
    public init(_ value: Int64 = 0) { stored.store(value, ordering: .relaxed) }
    public var value: Int64 { stored.load(ordering: .relaxed) }
    public func publish(_ value: Int64) { stored.store(value, ordering: .relaxed) }
}

/// Where run time and the wall clock meet in one lane: what is added to a run-relative time to get CLOCK_REALTIME.
///
/// Taken once, by the stage that starts first, so that send times in headers and kernel stamps share one timeline.
public final class WallClock {
    /// Nanoseconds since 1970 at the run's time zero; `nil` until a stage has told.
    public private(set) var offset: Int64?
    public init() {}

    /// Nanoseconds since 1970 at the run's time zero.
    public func origin(now: Timestamp, wall: UInt64) -> Int64 {
        if let offset { return offset }
        let origin = Int64(clamping: wall) - now.nanoseconds
        offset = origin
        return origin
    }

    /// The lane's.
    public static func of(_ shared: LaneShared) -> WallClock { shared.object("wall clock") { WallClock() } }
}
