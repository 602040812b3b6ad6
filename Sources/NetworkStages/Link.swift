import Emulation
public import PipelineCore

/// Emulated paths, one for each source: each has the source's `rate` and `latency`. Sizes only, no bytes.
///
/// The word that a movie pipeline on the virtual timeline has where a real one has `fetch`. Runs in real time, too.
public final class Link: Transport, Reporter, Summarizing {
    public static let typeName = "link"

    public struct Options: StageOptions {
        /// The most bytes that arrive together: how fine the players see progress.
        public var piece: ByteCount

        public init(from reader: inout OptionReader) {
            piece = reader.read("piece", default: .kibibytes(64), in: ByteCount(64)...ByteCount.kibibytes(64))
        }
    }

    public static func demands(of options: Options) -> StageDemands {
        var demands = StageDemands()
        demands.needsSources = true
        demands.providesBytes = false
        return demands
    }

    public static func problems(of options: Options, with sources: [Source]) -> [String] {
        sources.filter { $0.rate == nil }.map { "source '\($0.name)' needs a 'rate' for 'link' to emulate it" }
    }

    private struct Copy {
        var request: PacketDescriptor
        var firstByte = Timestamp.unset
    }
    private struct Path {
        var link: ConstantRateLink
        var copies: [UInt64: Copy] = [:]
        var deliveredByteCount: UInt64 = 0
        var duplicateByteCount: UInt64 = 0
    }

    private let sources: [Source]
    private var paths: [Path]
    private var received = ByteRangeSet()
    private var reports: [Report] = []

    public init(options: Options, context: StageContext) {
        sources = context.sources
        paths = sources.map { source in
            Path(
                link: ConstantRateLink(
                    rate: source.rate ?? .megabitsPerSecond(1),
                    latency: source.latency,
                    pieceByteCount: UInt32(options.piece.bytes)
                )
            )
        }
    }

    public func start(at now: Timestamp) throws(StageError) {
        for path in paths.indices { reports.append(.source(SourceReport(.up, path: UInt16(path), at: now))) }
    }

    public func transfer(_ input: inout PacketBatch, into output: inout PacketBatch, at now: Timestamp)
        throws(StageError) -> Wake
    {
        do {
            let packets = input.descriptors
            for index in packets.indices { accept(packets[index], at: now) }
        }
        input.removeAll()
        // Deliveries of all paths in order of time, the lower path first at equal times.
        while true {
            var first: (path: Int, delivery: ConstantRateLink.Delivery)?
            for path in paths.indices {
                guard let delivery = paths[path].link.next else { continue }
                if first == nil || delivery.time < first!.delivery.time { first = (path, delivery) }
            }
            guard let (path, delivery) = first else { return .whenFed }
            guard delivery.time <= now else { return .at(delivery.time) }
            guard output.freeCapacity >= 2 else { return .immediately }
            deliver(delivery, on: path, into: &output)
        }
    }

    private func accept(_ packet: PacketDescriptor, at now: Timestamp) {
        let path = Int(packet.path)
        switch packet.kind {
        case .request, .hedge:
            var request = packet
            request.departed = now
            paths[path].copies[packet.sequence] = Copy(request: request)
            paths[path].link.request(packet.sequence, byteCount: packet.byteCount, at: now)
        case .cancel:
            paths[path].copies[packet.sequence] = nil
            paths[path].link.cancel(packet.sequence, at: now)
        case .data, .done, .retract: break
        }
    }

    private func deliver(_ delivery: ConstantRateLink.Delivery, on path: Int, into output: inout PacketBatch) {
        paths[path].link.deliver()
        guard var copy = paths[path].copies[delivery.id] else { return }
        var data = copy.request
        data.kind = .data
        data.objectOffset += UInt64(delivery.offset)
        data.byteCount = delivery.byteCount
        data.arrived = delivery.time
        let newByteCount = received.insert(data.objectOffset..<data.objectEnd)
        data.isDuplicate = newByteCount < UInt64(delivery.byteCount)
        paths[path].deliveredByteCount += UInt64(delivery.byteCount)
        paths[path].duplicateByteCount += UInt64(delivery.byteCount) - newByteCount
        if copy.firstByte == .unset {
            copy.firstByte = delivery.time
            paths[path].copies[delivery.id] = copy
        }
        output.append(data)
        if delivery.isLast {
            var done = copy.request
            done.kind = .done
            done.firstByte = copy.firstByte
            done.arrived = delivery.time
            paths[path].copies[delivery.id] = nil
            output.append(done)
            reports.append(.chunk(ChunkReport(.done, of: done, at: delivery.time)))
        }
        reports.append(
            .path(
                PathReport(
                    path: UInt16(path),
                    time: delivery.time,
                    deliveredByteCount: paths[path].deliveredByteCount,
                    outstandingByteCount: paths[path].link.outstandingByteCount,
                    outstandingRequestCount: UInt32(paths[path].link.outstandingRequestCount),
                    // An emulated path knows what it is; nothing needs to be estimated.
                    rate: Double(paths[path].link.rate.bitsPerSecond),
                    latency: paths[path].link.latency,
                    lastProgress: delivery.time
                )
            )
        )
    }

    public func nextReport() -> Report? { reports.isEmpty ? nil : reports.removeFirst() }

    public func summary() -> [(key: String, value: SummaryValue)] {
        [
            (
                key: "sources",
                value: .list(
                    zip(sources, paths).map { source, path in
                        .object([
                            (key: "name", value: .text(source.name)),
                            (key: "bytes", value: .integer(Int64(clamping: path.deliveredByteCount))),
                            (key: "duplicate_bytes", value: .integer(Int64(clamping: path.duplicateByteCount))),
                        ])
                    }
                )
            )
        ]
    }
}
