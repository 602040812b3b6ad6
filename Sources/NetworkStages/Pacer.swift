package import Delivery
public import PipelineCore

/// Lets data go at a configured rate of payload, with a bounded burst. Everything else passes at once.
///
/// Without a `rate` it lets everything pass.
public final class Pacer: Scheduler {
    public static let typeName = "pacer"

    public struct Options: StageOptions {
        /// Payload bits a second; none for no limit.
        public var rate: BitRate?
        /// Payload bytes that may go ahead of the schedule.
        public var burst: ByteCount

        /// How late it may be and catch up: more keeps the average exact, less keeps bursts away.
        public var slack: Duration

        public init(from reader: inout OptionReader) {
            rate = reader.optional("rate")
            burst = reader.read("burst", default: .kibibytes(4), in: ByteCount(1)...ByteCount(1 << 30))
            slack = reader.read("slack", default: .milliseconds(10), in: .zero...(.seconds(60)))
        }
    }

    private var controller: (any RateController)?

    public init(options: Options, context: StageContext) {
        let slack = Timestamp.zero.advanced(by: options.slack).nanoseconds
        controller = options.rate.map { TokenBucket(rate: $0, burst: options.burst.bytes, slack: slack) }
    }

    /// Paces by a controller of one's own.
    package init(controller: any RateController) { self.controller = controller }

    public func schedule(_ input: inout PacketBatch, into output: inout PacketBatch, at now: Timestamp) -> Wake {
        var released = 0
        var wake = Wake.whenFed
        do {
            let packets = input.descriptors
            let limit = min(packets.count, output.freeCapacity)
            while released < limit {
                let packet = packets[released]
                if packet.kind == .data, packet.byteCount > 0, controller != nil {
                    let earliest = controller?.earliest(for: UInt64(packet.byteCount), at: now) ?? now
                    guard earliest <= now else {
                        wake = .at(earliest)
                        break
                    }
                    controller?.sent(UInt64(packet.byteCount), at: now)
                }
                released += 1
            }
        }
        input.moveFirst(released, to: &output)
        if case .at = wake { return wake }
        return input.isEmpty ? .whenFed : .immediately
    }
}
