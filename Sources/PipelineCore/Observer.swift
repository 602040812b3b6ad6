/// A point between two stages where a copy-free look at the traffic is possible.
public struct Tap: Hashable, Sendable {
    /// The stage whose output is looked at, by its name in the configuration.
    public var after: String
    public init(after stage: String) { self.after = stage }
}

/// Looks at packets and reports without touching them: counters, a packet log, an event log.
///
/// The batch is borrowed, so an observer can neither change it nor keep it. It sees packets from index `first` on, those
/// that have just been appended.
public protocol Observer: AnyObject {
    func observe(_ batch: borrowing PacketBatch, from first: Int, at tap: Tap, now: Timestamp)
    /// A stage of the lane has made a report.
    func observe(_ report: Report)
    /// The run has ended; write what is left.
    func finish(at now: Timestamp) throws(StageError)
}

/// An observer that a configuration file can name: `observers: [ { type: packet_log, after: link } ]`.
public protocol ConfiguredObserver: Observer, SendableMetatype {
    associatedtype Options: StageOptions
    static var typeName: String { get }
    init(options: Options, context: StageContext)
    /// Acquires what it needs from the machine, before the first packet.
    func start(at now: Timestamp) throws(StageError)
}

extension Observer {
    public func observe(_ batch: borrowing PacketBatch, from first: Int, at tap: Tap, now: Timestamp) {}
    public func observe(_ report: Report) {}
    public func finish(at now: Timestamp) throws(StageError) {}
}
