/// The file descriptors that one stage waits on. The lane polls them all together; the stage sees its own.
///
/// Level-triggered, as poll(2) and epoll(7) are by default: a descriptor that is not drained is ready again next turn.
/// Under virtual time nothing is ever ready.
public final class Descriptors {
    /// What to wait for.
    public struct Interest: OptionSet, Hashable, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        public static let read = Interest(rawValue: 1)
        public static let write = Interest(rawValue: 2)
        /// The other side has closed or an error waits. Always reported, never asked for.
        public static let hangup = Interest(rawValue: 4)
    }

    /// A change that the driver has yet to make to what it polls.
    public enum Change: Sendable {
        case add(CInt, Interest)
        case modify(CInt, Interest)
        case remove(CInt)
    }

    private var interests: [CInt: Interest] = [:]
    private var changes: [Change] = []
    /// Descriptors that were ready when the lane last looked, with what they are ready for.
    public private(set) var ready: [(descriptor: CInt, events: Interest)] = []

    public init() {}

    /// Waits on `descriptor`, or changes what it is waited on for.
    public func watch(_ descriptor: CInt, for interest: Interest) {
        switch interests.updateValue(interest, forKey: descriptor) {
        case nil: changes.append(.add(descriptor, interest))
        case interest: break
        default: changes.append(.modify(descriptor, interest))
        }
    }

    /// Whether `descriptor` is waited on.
    public func isWatching(_ descriptor: CInt) -> Bool { interests[descriptor] != nil }

    /// Does not wait on `descriptor` any more. Call it before closing it.
    public func forget(_ descriptor: CInt) {
        guard interests.removeValue(forKey: descriptor) != nil else { return }
        changes.append(.remove(descriptor))
        ready.removeAll { $0.descriptor == descriptor }
    }

    /// For drivers: the changes since the last call.
    public func takeChanges() -> [Change] {
        defer { changes.removeAll(keepingCapacity: true) }
        return changes
    }

    /// For drivers: whether there are changes to take.
    public var hasChanges: Bool { !changes.isEmpty }

    /// For drivers: forgets what was ready.
    public func clearReady() { ready.removeAll(keepingCapacity: true) }

    /// For drivers: `descriptor` is ready for `events`.
    public func markReady(_ descriptor: CInt, for events: Interest) {
        guard interests[descriptor] != nil else { return }
        ready.append((descriptor, events))
    }
}
