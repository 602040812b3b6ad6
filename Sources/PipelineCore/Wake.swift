/// When a stage wants its next turn.
///
/// A soft deadline: an early turn is harmless and finds nothing to do; a late one is late on the wire. Whatever a stage
/// answers, its lane also turns when a descriptor in the stage's ``StageContext/descriptors`` becomes ready.
public enum Wake: Hashable, Sendable {
    /// There is more to do at once.
    case immediately
    /// Nothing to do before this time, unless a descriptor becomes ready.
    case at(Timestamp)
    /// Nothing to do until the stage before it has packets, a report comes or a descriptor becomes ready.
    case whenFed
    /// Nothing to do ever again: the capture has ended, or everything held has been passed on.
    case finished

    /// The earlier of two wishes.
    public func sooner(of other: Wake) -> Wake {
        switch (self, other) {
        case (.immediately, _), (_, .immediately): .immediately
        case (.finished, let wake), (let wake, .finished): wake
        case (.whenFed, let wake), (let wake, .whenFed): wake
        case (.at(let a), .at(let b)): .at(min(a, b))
        }
    }
}
