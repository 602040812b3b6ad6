/// Where the stages of one lane note whom they exchange packets with, so that a tap on the wire can ask for just those.
public final class SocketBoard {
    /// One flow's transport and remote or local end.
    public struct Entry: Hashable, Sendable {
        /// `udp` or `tcp`.
        public var transport: String
        /// The address as text without brackets; `nil` for any.
        public var address: String?
        public var port: UInt16
        public init(transport: String, address: String?, port: UInt16) {
            self.transport = transport
            self.address = address
            self.port = port
        }
    }

    public private(set) var entries: [Entry] = []
    public init() {}

    /// Notes an end of a flow, once.
    public func note(_ entry: Entry) { if !entries.contains(entry) { entries.append(entry) } }

    /// The lane's.
    public static func of(_ shared: LaneShared) -> SocketBoard { shared.object("sockets") { SocketBoard() } }

    /// A filter expression for the packets of these ends; `nil` if there are none.
    ///
    /// Fragments have no ports: those between the same hosts are let through as well.
    public static func filter(_ entries: [Entry]) -> String? {
        guard !entries.isEmpty else { return nil }
        let hosts = Set(entries.compactMap(\.address)).sorted()
        // Many exact flows make a program that the kernel does not take, and that takes minutes to compile.
        var terms: [String]
        if entries.count <= 16 {
            terms = entries.map { entry in
                "(\(entry.transport) port \(entry.port)" + (entry.address.map { " and host \($0)" } ?? "") + ")"
            }
        } else {
            let ports = entries.map(\.port)
            terms = ["(portrange \(ports.min() ?? 0)-\(ports.max() ?? .max))"]
        }
        for host in hosts.prefix(16) {
            terms.append(
                host.contains(":") ? "(ip6 proto 44 and host \(host))" : "(ip[6:2] & 0x1fff != 0 and host \(host))"
            )
        }
        return terms.joined(separator: " or ")
    }
}
