#if Pcap
import CaptureFiles
public import PipelineCore

#if canImport(Glibc)
import Glibc
#endif

/// Captures what passes an interface while the pipeline runs, into `wire-PIPELINE-INTERFACE.pcapng` of the run's folder.
///
/// The capture is live before the first packet and ends after the last. Without a `filter` it takes the packets of the
/// pipeline's own sockets. When the run has ended, what it captured is compared with the run's logs.
public final class PcapObserver: ConfiguredObserver {
    public static let typeName = "pcap"

    public struct Options: StageOptions {
        /// The interface, such as `lo` or `eth0`.
        public var interface: String
        /// Which side of the wire it is at: `tx` at the sender's host, `rx` at the receiver's, `both` on the loopback.
        public var role: TapRole
        /// Bytes kept of each packet; a movie's need all of them.
        public var snaplen: ByteCount
        /// Bytes of the kernel's ring: about 220 for each packet that waits.
        public var ring: ByteCount
        /// After so long a part of the ring that is not full is handed over.
        public var timeout: Duration
        /// A filter expression; empty: the pipeline's own sockets.
        public var filter: String
        /// Whether the interface is to be promiscuous: only then it counts what it drops.
        public var promiscuous: Bool
        /// The processor to run on.
        public var pin: Int?

        public init(from reader: inout OptionReader) {
            interface = reader.read("interface", default: "lo")
            role = reader.read("role", default: .both)
            snaplen = reader.read("snaplen", default: ByteCount(262_144), in: ByteCount(64)...ByteCount(262_144))
            ring = reader.read("ring", default: .mebibytes(32), in: .kibibytes(64)...(.mebibytes(1_024)))
            timeout = reader.read("timeout", default: .milliseconds(10), in: .milliseconds(1)...(.seconds(1)))
            filter = reader.read("filter", default: "")
            promiscuous = reader.read("promiscuous", default: false)
            pin = reader.optional("pin")
        }
    }

    private let options: Options
    private let context: StageContext
    private var tap: PcapTap?

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
    }

    public func start(at now: Timestamp) throws(StageError) {
        let name = options.interface.map { $0.isLetter || $0.isNumber ? $0 : "-" }
        guard let path = context.runFile("wire-\(context.pipeline)-\(String(name)).pcapng") else { return }
        var settings = PcapSettings()
        settings.interface = options.interface
        settings.role = options.role.rawValue
        settings.snapLength = Int(options.snaplen.bytes)
        settings.buffer = Int(options.ring.bytes)
        settings.timeout = Int(options.timeout / .milliseconds(1))
        settings.isPromiscuous = options.promiscuous
        settings.processor = options.pin
        settings.filter = options.filter.isEmpty ? ownFilter() : options.filter
        let tap = try PcapTap(settings, path: path, application: "tributary")
        try tap.start()
        self.tap = tap
    }

    /// The packets of the pipeline's sources and sockets; if none is known, all of UDP and TCP.
    private func ownFilter() -> String {
        var entries = SocketBoard.of(context.shared).entries
        for source in context.sources {
            guard let url = try? SourceURL(source.url), let address = address(of: url),
                let colon = address.lastIndex(of: ":"), let port = UInt16(address[address.index(after: colon)...])
            else { continue }
            let host = address[..<colon].filter { $0 != "[" && $0 != "]" }
            // A name may stand for several addresses: then the port must do.
            let isNumeric = host.contains(":") || host.allSatisfy { $0.isNumber || $0 == "." }
            entries.append(.init(transport: url.scheme.rawValue, address: isNumeric ? String(host) : nil, port: port))
        }
        return SocketBoard.filter(entries) ?? "udp or tcp"
    }

    /// A server of the same file binds its port as this pipeline starts: it is waited for, two seconds at most.
    private func address(of url: SourceURL) -> String? {
        switch url.server {
        case .address(let text): return text
        case .pipeline(let name):
            for _ in 0..<400 {
                if let text = context.addresses.address(of: "\(name)/\(url.scheme.rawValue)") { return text }
                usleep(5_000)
            }
            return nil
        }
    }

    public func finish(at now: Timestamp) throws(StageError) {
        guard let tap else { return }
        self.tap = nil
        if let words = tap.stop().failure {
            throw StageError(.outputFailed, "the capture at '\(options.interface)' failed: \(words)")
        }
    }
}

/// Which side of the wire a tap is at.
public enum TapRole: String, OptionChoice {
    case tx, rx, both
}
#endif
