import Synchronization

/// Where pipelines of one file tell each other the address they are bound to.
///
/// A server binds to port 0 and posts what it got; a client that names the pipeline reads it. Nothing else crosses.
public final class AddressBoard: Sendable {
    private let posted = Mutex<[String: String]>([:])
    public init() {}

    /// Posts `host:port` under the name of a pipeline and a transport, `servers/tcp`.
    public func post(_ address: String, for name: String) { posted.withLock { $0[name] = address } }

    /// What was posted under the name, if anything was yet.
    public func address(of name: String) -> String? { posted.withLock { $0[name] } }
}
