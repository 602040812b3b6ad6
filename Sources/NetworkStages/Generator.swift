import Delivery
public import PipelineCore

/// Makes datagrams of a rate test: as many as are taken, or a number of them, of one size, of sizes between two, or of
/// sizes from a list.
///
/// Equal datagrams come as trains of up to `segments`, which the kernel cuts. The bytes behind the header are the same in
/// all datagrams of a flow and are written once; ``UDPSend`` writes the headers.
public final class Generator: Capture, Summarizing {
    public static let typeName = "generator"

    public struct Options: StageOptions {
        /// UDP payload of a datagram, its header of 32 bytes included.
        public var size: ByteCount
        /// With it, sizes are uniform from `size` to this one.
        public var maxSize: ByteCount?
        /// A file with a size on each line, repeated for ever: recorded sizes in place of `size`.
        public var sizesFrom: String?
        /// Datagrams in a train; 1 for none.
        public var segments: Int
        /// Datagrams in all; 0: no limit but the run's.
        public var count: UInt64
        /// The flow id in the headers.
        public var flow: Int
        /// Trains, or single datagrams, of a batch.
        public var batch: Int
        /// When the first one is made, in nanoseconds of CLOCK_REALTIME; `nil`: at once.
        package var first: Int64?

        public init(from reader: inout OptionReader) {
            size = reader.read("size", default: ByteCount(1_200), in: ByteCount(32)...ByteCount(65_507))
            maxSize = reader.optional("max_size")
            sizesFrom = reader.optional("sizes_from")
            segments = reader.read("segments", default: 1, in: 1...128)
            count = reader.read("count", default: 0, in: 0...(1 << 62))
            flow = reader.read("flow", default: 1, in: 0...Int(UInt32.max))
            batch = reader.read("batch", default: 64, in: 1...1_024)
            if let maxSize, maxSize < size || maxSize.bytes > 65_507 {
                reader.reject("max_size", "'max_size' is from 'size' to 65507B")
            }
            if segments > 1, maxSize != nil || sizesFrom != nil {
                reader.reject("segments", "a train is of equal datagrams: 'segments' goes with one 'size'")
            }
            if UInt64(segments) * size.bytes > 65_507 {
                reader.reject("segments", "a train is at most 65507 bytes, found \(UInt64(segments) * size.bytes)")
            }
        }

        /// One size, as trains.
        public init(size: Int, segments: Int, flow: UInt32, batch: Int) {
            self.size = ByteCount(UInt64(size))
            self.segments = segments
            self.flow = Int(flow)
            self.batch = batch
            count = 0
        }

        /// The largest packet, in bytes.
        var largest: Int {
            sizesFrom != nil ? 65_507 : max(Int(maxSize?.bytes ?? 0), segments * Int(size.bytes))
        }
    }

    public static func demands(of options: Options) -> StageDemands {
        var demands = StageDemands()
        demands.batchCapacity = options.batch
        demands.slotByteCount = options.largest
        // Those between the generator and the socket, on both sides of a scheduler.
        demands.heldSlotCount = 3 * options.batch
        demands.providesBytes = true
        return demands
    }

    private let options: Options
    private let context: StageContext
    private var random: SeededGenerator
    private var sizes: [Int] = []
    private var place = 0
    private var next: UInt64 = 0
    private var hasFilled = false
    private var first = Timestamp.zero

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
        random = SeededGenerator(seed: context.seed)
    }

    public func start(at now: Timestamp) throws(StageError) {
        if let wall = options.first {
            let origin = WallClock.of(context.shared).origin(now: now, wall: Socket.realtimeNanoseconds())
            first = Timestamp(nanoseconds: wall - origin)
        }
        guard let path = options.sizesFrom else { return }
        sizes = try Self.readSizes(context.resolve(path))
    }

    /// Reads one size a line.
    static func readSizes(_ path: String) throws(StageError) -> [Int] {
        let text = try Libc.text(of: path, limit: 16 << 20)
        var sizes: [Int] = []
        for (index, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
            let word = line.prefix { $0 != "#" }.filter { !$0.isWhitespace }
            guard !word.isEmpty else { continue }
            guard let size = Int(word), (32...65_507).contains(size) else {
                throw StageError(
                    .invalidInput,
                    "\(path):\(index + 1): error: expected a size from 32 to 65507, found '\(word.prefix(40))'"
                )
            }
            sizes.append(size)
        }
        guard !sizes.isEmpty else { throw StageError(.invalidInput, "\(path): error: no size is in it") }
        return sizes
    }

    public func capture(into output: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        let pool = output.pool
        if !hasFilled {
            // Once for all datagrams: behind the headers all bytes of a flow are the same.
            pool.fill(0xA5)
            hasFilled = true
        }
        // Nothing before its time: a pacer behind it would let what has waited go at once.
        guard now >= first else { return .at(first) }
        let (size, segments, limit) = (Int(options.size.bytes), options.segments, options.count)
        let isFixed = sizes.isEmpty && options.maxSize == nil
        let flow = UInt32(options.flow)
        var next = next
        defer { self.next = next }
        while !output.isFull {
            var datagrams = segments
            if limit > 0 {
                guard next < limit else { return .finished }
                datagrams = Int(min(UInt64(datagrams), limit - next))
            }
            // The slots are all on their way: more when they come back.
            guard let slot = pool.take() else { break }
            var packet = PacketDescriptor(.data, sequence: next, stream: flow, captured: now)
            if segments > 1 {
                packet.byteCount = UInt32(datagrams * size)
                packet.segment = UInt16(size)
            } else {
                packet.byteCount = UInt32(isFixed ? size : nextSize(size))
            }
            output.append(packet, takingOver: slot)
            next += UInt64(datagrams)
        }
        // What stopped it is a full batch or an empty pool: the stages behind it wake the lane when they have sent.
        return .whenFed
    }

    private func nextSize(_ size: Int) -> Int {
        if !sizes.isEmpty {
            defer { place = (place + 1) % sizes.count }
            return sizes[place]
        }
        guard let largest = options.maxSize else { return size }
        return Int.random(in: size...Int(largest.bytes), using: &random)
    }

    public func summary() -> [(key: String, value: SummaryValue)] {
        [(key: "datagrams", value: .integer(Int64(clamping: next)))]
    }
}
