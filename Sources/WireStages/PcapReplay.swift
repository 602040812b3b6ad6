import CaptureFiles
public import PipelineCore

/// The UDP payloads of a capture file, at the times at which they were captured, or at a multiple of that pace.
///
/// A payload of which less was captured than was sent comes as far as it was captured; its descriptor has its own size.
public final class PcapReplay: Capture, Summarizing {
    public static let typeName = "pcap_replay"

    public struct Options: StageOptions {
        /// The file: pcap or pcapng.
        public var file: String
        /// How much faster than recorded; 0: as fast as can be.
        public var pace: Double
        /// Only payloads to this UDP port; 0: all.
        public var port: Int

        public init(from reader: inout OptionReader) {
            file = reader.require("file", placeholder: "")
            pace = reader.read("pace", default: 1, in: 0...1_000_000)
            port = reader.read("port", default: 0, in: 0...65_535)
        }
    }

    public static func demands(of options: Options) -> StageDemands {
        var demands = StageDemands()
        demands.providesBytes = true
        demands.slotByteCount = 65_536
        return demands
    }

    private let options: Options
    private let context: StageContext
    private var reader: CaptureReader?
    private var begin: Int64?
    private var waiting: (packet: CapturedPacket, payload: Range<Int>, due: Timestamp)?
    private var count: UInt64 = 0
    private var skipped: Int64 = 0

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
    }

    public func start(at now: Timestamp) throws(StageError) {
        do throws(CaptureFileError) {
            reader = try CaptureReader(path: context.resolve(options.file))
        } catch { throw StageError(.invalidInput, "\(error)") }
        if let problem = reader?.problem {
            throw StageError(.invalidInput, "\(context.resolve(options.file)): \(problem)")
        }
    }

    public func capture(into output: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        while !output.isFull {
            guard let (packet, payload, due) = waiting ?? next(after: now) else {
                if let problem = reader?.problem {
                    throw StageError(.invalidInput, "\(context.resolve(options.file)): \(problem)")
                }
                return .finished
            }
            waiting = (packet, payload, due)
            guard due <= now else { return .at(due) }
            guard let file = reader?.file else { return .finished }
            var descriptor = PacketDescriptor(.data, sequence: count, captured: due)
            descriptor.arrived = due
            let bytes = file.span.extracting(payload)
            let didFit = output.append(descriptor) { room in
                for index in 0..<bytes.byteCount {
                    // In bounds: the range is the span's own.
                    room.append(unsafe bytes.unsafeLoad(fromByteOffset: index, as: UInt8.self))
                }
            }
            guard didFit else { return .whenFed }
            count += 1
            waiting = nil
        }
        return .immediately
    }

    /// The next UDP payload, and when it is due.
    private func next(after now: Timestamp) -> (packet: CapturedPacket, payload: Range<Int>, due: Timestamp)? {
        while let packet = reader?.next(), let file = reader?.file, let interface = reader?.interfaces[packet.interface]
        {
            let decoded = PacketDecoder.decode(
                file.span.extracting(packet.bytes),
                originalLength: packet.originalLength,
                linkType: interface.linkType
            )
            guard decoded.isUDP, options.port == 0 || Int(decoded.destinationPort) == options.port else {
                skipped += 1
                continue
            }
            let first = min(packet.bytes.lowerBound + decoded.payloadOffset, packet.bytes.upperBound)
            let payload = first..<min(first + min(decoded.payloadLength, 65_536), packet.bytes.upperBound)
            let time = packet.time ?? begin ?? 0
            let start = begin ?? time
            begin = start
            guard options.pace > 0 else { return (packet, payload, now) }
            let offset = Double(time &- start) / options.pace
            return (packet, payload, Timestamp(nanoseconds: Int64(max(0, min(offset, 9e18)))))
        }
        return nil
    }

    public func summary() -> [(key: String, value: SummaryValue)] {
        [(key: "payloads", value: .integer(Int64(clamping: count))), (key: "skipped", value: .integer(skipped))]
    }
}
