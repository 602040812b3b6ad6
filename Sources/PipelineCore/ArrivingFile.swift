import Synchronization

/// A file that comes in any order while others read it: which of its bytes are there.
///
/// A sink writes it and says what is on the disk; readers on other threads wait for the rest.
public final class ArrivingFile: Sendable {
    public struct State: Sendable {
        /// Where it is now: it may be renamed when it is whole.
        public var path: String
        /// Bytes of the whole object; `nil` until it is known.
        public var byteCount: UInt64?
        /// What can be read.
        public var received = ByteRangeSet()
        /// Whether nothing more will come.
        public var hasEnded = false
    }
    private let storage: Mutex<State>

    public init(path: String) { storage = Mutex(State(path: path)) }

    public var state: State { storage.withLock { $0 } }
    public func update(_ change: (inout sending State) -> Void) { storage.withLock { change(&$0) } }
}

/// Where the sinks of a run make the files known that they write.
public final class FileBoard: Sendable {
    private let posted = Mutex<[ArrivingFile]>([])
    public init() {}

    public func post(_ file: ArrivingFile) { posted.withLock { $0.append(file) } }

    /// In the order in which they were posted.
    public var files: [ArrivingFile] { posted.withLock { $0 } }
}
