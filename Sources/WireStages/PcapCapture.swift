#if Pcap
import CPcap
public import PipelineCore

/// Packets of an interface as they pass: their captured bytes, link header and all, stamped by the kernel.
///
/// `arrived` is the kernel's stamp, `captured` the time at which the pipeline had it. For a file of everything use the
/// observer of the same name, or `tributary wire capture`.
@safe
public final class PcapCapture: Capture, Summarizing {
    public static let typeName = "pcap"

    public struct Options: StageOptions {
        /// The interface.
        public var interface: String
        /// Bytes kept of each packet.
        public var snaplen: ByteCount
        /// Bytes of the kernel's ring.
        public var ring: ByteCount
        /// After so long a part of the ring that is not full is handed over.
        public var timeout: Duration
        /// A filter expression.
        public var filter: String

        public init(from reader: inout OptionReader) {
            interface = reader.read("interface", default: "lo")
            snaplen = reader.read("snaplen", default: ByteCount(128), in: ByteCount(64)...ByteCount(262_144))
            ring = reader.read("ring", default: .mebibytes(32), in: .kibibytes(64)...(.mebibytes(1_024)))
            timeout = reader.read("timeout", default: .milliseconds(10), in: .milliseconds(1)...(.seconds(1)))
            filter = reader.read("filter", default: "udp or tcp")
        }
    }

    public static func demands(of options: Options) -> StageDemands {
        var demands = StageDemands()
        demands.needsRealTime = true
        demands.providesBytes = true
        demands.isService = true
        demands.slotByteCount = Int(options.snaplen.bytes)
        return demands
    }

    private let options: Options
    private let context: StageContext
    private var handle: PcapHandle?
    private var origin: Int64 = 0
    private var next: UInt64 = 0
    /// A packet of the ring that has not gone on: it is good until the next is asked for.
    private var header: UnsafeMutablePointer<pcap_pkthdr>?
    private var bytes: UnsafePointer<UInt8>?

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
    }

    public func start(at now: Timestamp) throws(StageError) {
        var settings = PcapSettings()
        settings.interface = options.interface
        settings.snapLength = Int(options.snaplen.bytes)
        settings.buffer = Int(options.ring.bytes)
        settings.timeout = Int(options.timeout / .milliseconds(1))
        let handle = try PcapHandle(settings, filter: options.filter)
        origin = WallClock.of(context.shared).origin(now: now, wall: UInt64(clamping: PcapTap.realtime()))
        context.descriptors.watch(handle.descriptor, for: .read)
        self.handle = handle
    }

    public func capture(into output: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        guard let handle else { return .whenFed }
        while !output.isFull {
            if unsafe header == nil {
                let status = unsafe pcap_next_ex(handle.raw, &header, &bytes)
                if status < 0 { throw StageError(.systemCall, "cannot capture: \(handle.errorText)") }
                guard status > 0 else {
                    unsafe header = nil
                    return .whenFed
                }
            }
            guard let packet = unsafe header?.pointee, let start = unsafe bytes else { return .whenFed }
            var descriptor = PacketDescriptor(.data, sequence: next, captured: now)
            descriptor.arrived = Timestamp(
                nanoseconds: PcapHandle.time(packet, hasNanoseconds: handle.hasNanoseconds) &- origin
            )
            let count = min(Int(packet.caplen), Int(options.snaplen.bytes))
            let didFit = output.append(descriptor) { room in
                // In bounds: libpcap says how many there are.
                for index in 0..<count { room.append(unsafe start[index]) }
            }
            // The stages behind hold all slots: it waits.
            guard didFit else { return .whenFed }
            unsafe header = nil
            next += 1
        }
        return .immediately
    }

    public func finish(at now: Timestamp) throws(StageError) {
        guard let handle else { return }
        handle.readStatistics()
        context.descriptors.forget(handle.descriptor)
        counts = (handle.received, handle.dropped)
        self.handle = nil
    }
    private var counts: (received: UInt64, dropped: UInt64) = (0, 0)

    public func summary() -> [(key: String, value: SummaryValue)] {
        [
            (key: "packets", value: .integer(Int64(clamping: next))),
            (key: "received", value: .integer(Int64(clamping: counts.received))),
            (key: "dropped", value: .integer(Int64(clamping: counts.dropped))),
        ]
    }
}
#endif
