public import PipelineCore

/// The sockets of a server, between the capture that opened them and the sink that answers through them.
protocol ServerEndpoint: AnyObject {
    /// Takes a data or done descriptor to send; `stream` names the client.
    func enqueue(_ packet: PacketDescriptor)
    /// Sends what can be sent now.
    ///
    /// - Returns: When to be called again, besides when a socket becomes writable.
    func flush(at now: Timestamp) -> Wake
}

/// Stands for an endpoint until the capture has started: sinks start first.
final class DeferredEndpoint: ServerEndpoint {
    func enqueue(_ packet: PacketDescriptor) {}
    func flush(at now: Timestamp) -> Wake { .whenFed }
}

/// Holds the endpoint for the stages of one lane.
final class EndpointHolder {
    var endpoint: (any ServerEndpoint)?
    init() {}

    static func of(_ context: StageContext) -> EndpointHolder {
        context.shared.object("server endpoint") { EndpointHolder() }
    }
}

/// Sends back what a server's capture was asked for, through the sockets that the capture opened.
public final class Reply: Sink, Summarizing {
    public static let typeName = "reply"

    public struct Options: StageOptions {
        public init(from reader: inout OptionReader) {}
    }

    private let holder: EndpointHolder
    private let name: String
    private var byteCount: UInt64 = 0

    public init(options: Options, context: StageContext) {
        holder = EndpointHolder.of(context)
        name = context.name
    }

    public func start(at now: Timestamp) throws(StageError) {
        guard holder.endpoint != nil else {
            throw StageError(
                .unsupported,
                "'\(name)' answers for 'tcp_serve' or 'udp_serve', and the pipeline has neither"
            )
        }
    }

    public func consume(_ input: borrowing PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        let packets = input.descriptors
        for index in packets.indices {
            if packets[index].kind == .data { byteCount += UInt64(packets[index].byteCount) }
            holder.endpoint?.enqueue(packets[index])
        }
        return holder.endpoint?.flush(at: now) ?? .whenFed
    }

    public func summary() -> [(key: String, value: SummaryValue)] {
        [(key: "payload_bytes", value: .integer(Int64(clamping: byteCount)))]
    }
}
