import CBatchIO
package import Measures
public import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Receives datagrams, many in a system call; with `gro` the kernel joins equal ones to trains.
///
/// `arrived` is the kernel's receive stamp where there is one, `captured` the time at which the application had it. Several
/// stages in lanes of their own may share one address (`share_port`): the kernel divides flows among them.
public final class UDPReceive: Capture, Summarizing {
    public static let typeName = "udp_receive"

    /// How to wait for datagrams.
    public enum Waiting: String, OptionChoice {
        /// Ask again at once: the lowest delay, a whole processor.
        case spin
        /// Sleep until there is one: the least processor time at low rates.
        case block
        /// Take all there is, then sleep for `nap`: the highest rate for the least processor time.
        case nap
    }

    public struct Options: StageOptions {
        /// The address to listen at, `HOST:PORT`; port 0 takes a free one.
        public var listen: String
        /// Whether other stages may listen there too, each for some of the flows.
        public var sharePort: Bool
        /// Whether the kernel may join datagrams to trains.
        public var gro: Bool
        public var wait: Waiting
        /// How long a nap is.
        public var nap: Duration
        /// Messages of one system call.
        public var batch: Int
        /// Room for a datagram when they are not joined.
        public var room: ByteCount
        /// Bytes that the kernel may hold.
        public var receiveBuffer: ByteCount
        /// Whether arrival is when the kernel had a datagram, or when the application had it.
        public var kernelStamps: Bool
        /// Whether to take datagrams of the first sender only: a connected socket is up to 18 % faster.
        public var single: Bool
        /// The processor to run the lane on.
        public var pin: Int?
        package var socket = TestSocket.open
        package var report: Published<SocketReport>?

        /// All defaults.
        public init() {
            var reader = OptionReader.describing()
            self.init(from: &reader)
        }

        public init(from reader: inout OptionReader) {
            listen = reader.read("listen", default: "127.0.0.1:0")
            sharePort = reader.read("share_port", default: false)
            gro = reader.read("gro", default: true)
            wait = reader.read("wait", default: .nap)
            nap = reader.read("nap", default: .microseconds(200), in: .microseconds(1)...(.seconds(1)))
            batch = reader.read("batch", default: gro ? 64 : 256, in: 1...1_024)
            room = reader.read("room", default: ByteCount(2_048), in: ByteCount(64)...ByteCount(65_536))
            receiveBuffer = reader.read(
                "receive_buffer",
                default: .mebibytes(8),
                in: .kibibytes(2)...(.mebibytes(1_024))
            )
            kernelStamps = reader.read("kernel_stamps", default: true)
            single = reader.read("single", default: false)
            pin = reader.optional("pin")
        }
    }

    public static func demands(of options: Options) -> StageDemands {
        var demands = StageDemands()
        demands.needsRealTime = true
        demands.providesBytes = true
        demands.isService = true
        demands.batchCapacity = options.batch
        // A message may be a whole super-packet; a shorter room would cut it without a word.
        demands.slotByteCount = options.gro ? 65_536 : Int(options.room.bytes)
        demands.heldSlotCount = 2 * options.batch
        if !options.sharePort { demands.listensAt = "udp \(options.listen)" }
        return demands
    }

    private let options: Options
    private let context: StageContext
    private var state: UDPReceiveState?

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
        // Known before it is bound: an observer that captures starts before.
        if case .open = options.socket, let word = options.listen.split(separator: ":").last, let port = UInt16(word),
            port > 0
        {
            SocketBoard.of(context.shared).note(.init(transport: "udp", address: nil, port: port))
        }
    }

    public func start(at now: Timestamp) throws(StageError) {
        let socket: CInt
        switch options.socket {
        case .adopted(let descriptor): socket = descriptor
        case .open:
            let (descriptor, address) = try Socket.bound(
                to: options.listen,
                stream: false,
                sharesPort: options.sharePort
            )
            socket = descriptor
            context.addresses.post("\(address)", for: "\(context.pipeline)/udp")
        }
        do throws(StageError) {
            try pinLane(options.pin)
        } catch {
            Libc.close(socket)
            throw error
        }
        let state = try UDPReceiveState(socket: socket, options: options, context: context, now: now)
        self.state = state
        // From here on nothing is lost for want of a receiver.
        options.report?.publish(state.report())
    }

    public func capture(into output: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        guard let state else { return .whenFed }
        return try state.receive(into: &output, at: now)
    }

    public func finish(at now: Timestamp) throws(StageError) { state?.close() }

    public func summary() -> [(key: String, value: SummaryValue)] {
        guard let report = state?.report() else { return [] }
        return [
            (key: "messages", value: .integer(report.messages)), (key: "calls", value: .integer(report.calls)),
            (key: "truncated", value: .integer(report.truncated)),
            (key: "socket_dropped", value: .integer(report.dropped)),
            (key: "unread_at_close", value: .integer(state?.unread ?? 0)),
            (key: "closed_realtime_ns", value: .integer(state?.closed ?? 0)),
            (key: "receive_buffer", value: .integer(report.receiveBuffer)),
            (key: "errors", value: .integer(report.errors)),
            (key: "processor_ns", value: .integer(report.usage.processorNanoseconds)),
        ]
    }
}

/// The socket, its vectors and its counts: one object, entered once a batch.
@safe
private final class UDPReceiveState {
    private static let spinTries = 16
    private let socket: CInt
    private let options: UDPReceive.Options
    private let context: StageContext
    private let vectors: OpaquePointer
    private let packets: UnsafeMutablePointer<cbatchio_packet>
    /// The slot of each vector, `slotCount` of them.
    private let slots: UnsafeMutablePointer<UInt32>
    private var slotCount = 0
    /// Vectors whose slot is new since the last call.
    private var changed = 0
    /// Vectors whose slots the last call's messages took with them.
    private var filled = 0
    private var connectsFirst: Bool
    private let origin: Int64
    private let nap: Int64
    private var counters = SocketReport()
    private var kernelToApplication = LogLinearHistogram()
    private var interarrival = LogLinearHistogram()
    private var lastStamp: Int64 = 0
    private var isClosed = false
    /// Datagrams that were in the socket when it was closed, and when nobody read any more, by CLOCK_REALTIME.
    private(set) var unread: Int64 = 0
    private(set) var closed: Int64 = 0
    private var pool: PacketPool?

    init(socket: CInt, options: UDPReceive.Options, context: StageContext, now: Timestamp) throws(StageError) {
        guard let vectors = unsafe cbatchio_create(UInt32(options.batch)) else {
            throw StageError(.resourceExhausted, "no memory for the vectors of a socket")
        }
        unsafe self.vectors = vectors
        unsafe packets = .allocate(capacity: options.batch)
        unsafe packets.initialize(repeating: cbatchio_packet(), count: options.batch)
        unsafe slots = .allocate(capacity: options.batch)
        unsafe slots.initialize(repeating: .max, count: options.batch)
        self.socket = socket
        self.options = options
        self.context = context
        connectsFirst = options.single
        nap = Timestamp.zero.advanced(by: options.nap).nanoseconds
        origin = WallClock.of(context.shared).origin(now: now, wall: cbatchio_real_ns())
        let family = Socket.localAddress(of: socket)?.family ?? AF_INET
        counters.receiveBuffer = Int64(
            cbatchio_set_receive_buffer(socket, CInt(clamping: options.receiveBuffer.bytes))
        )
        var features = CBATCHIO_DROP_COUNT
        if options.gro { features |= CBATCHIO_GRO }
        if options.kernelStamps { features |= CBATCHIO_RECEIVE_STAMPS }
        _ = cbatchio_configure(socket, family, UInt32(features))
        if options.wait == .block { context.descriptors.watch(socket, for: .read) }
    }

    deinit {
        unsafe cbatchio_destroy(vectors)
        unsafe packets.deallocate()
        unsafe slots.deallocate()
    }

    func receive(into output: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        let room = min(options.batch, output.freeCapacity)
        guard room > 0 else { return .whenFed }
        let pool = output.pool
        self.pool = pool
        arm(room, pool)
        let wanted = min(room, slotCount)
        guard wanted > 0 else { return .whenFed }
        var status = unsafe cbatchio_receive(vectors, socket, packets, UInt32(wanted), UInt32(changed))
        changed = 0
        if options.wait == .spin {
            // The lane's turn costs as much as an empty call: a few calls a turn find a datagram sooner.
            var tries = 1
            while status == 0, tries < Self.spinTries {
                status = unsafe cbatchio_receive(vectors, socket, packets, UInt32(wanted), 0)
                tries += 1
            }
        }
        if connectsFirst, status > 0 { connectToFirst() }
        guard status > 0 else {
            // ICMP news of something that this socket sent.
            if status < 0 { counters.errors += 1 }
            return idle(now)
        }
        take(Int(status), into: &output)
        return Int(status) < wanted && options.wait == .nap ? idle(now) : .immediately
    }

    private func idle(_ now: Timestamp) -> Wake {
        switch options.wait {
        case .spin: .immediately
        case .block: .whenFed
        case .nap: .at(Timestamp(nanoseconds: now.nanoseconds + nap))
        }
    }

    private func take(_ count: Int, into output: inout PacketBatch) {
        let time = Int64(bitPattern: cbatchio_real_ns())
        let (origin, usesStamps) = (origin, options.kernelStamps)
        var (dropped, truncated): (UInt32, Int64) = (0, 0)
        let captured = Timestamp(nanoseconds: time &- origin)
        for index in 0..<count {
            // In bounds: a call fills no more vectors than it was given, and each has its slot.
            let message = unsafe packets + index
            let stamp = unsafe message.pointee.kernel_time_ns
            let arrived = stamp == 0 || !usesStamps ? time : stamp
            if arrived != time {
                kernelToApplication.record(UInt64(max(0, time &- arrived)))
                if lastStamp != 0 { interarrival.record(UInt64(max(0, arrived &- lastStamp))) }
                lastStamp = arrived
            }
            var packet = PacketDescriptor(sequence: 0, captured: captured)
            packet.arrived = Timestamp(nanoseconds: arrived &- origin)
            packet.byteCount = unsafe message.pointee.byte_count
            packet.segment = unsafe message.pointee.segment
            packet.dropped = unsafe message.pointee.dropped
            dropped = max(dropped, packet.dropped)
            truncated += unsafe Int64(message.pointee.is_truncated)
            output.append(packet, takingOver: unsafe slots[index])
        }
        counters.calls += 1
        counters.messages += Int64(count)
        counters.truncated += truncated
        counters.dropped = max(counters.dropped, Int64(dropped))
        filled = count
    }

    /// Gives every vector a slot: those that were filled have handed theirs on, and what came back last comes first, so
    /// that a steady flow lives in a few slots that the processor's caches hold.
    private func arm(_ room: Int, _ pool: PacketPool) {
        let count = filled
        filled = 0
        changed = max(changed, count)
        for index in 0..<count {
            guard let slot = pool.take() else {
                // Those behind it move up.
                for place in count..<slotCount { unsafe set(index + place - count, slots[place], pool) }
                slotCount -= count - index
                changed = slotCount
                return
            }
            unsafe set(index, slot, pool)
        }
        while slotCount < room, let slot = pool.take() {
            unsafe set(slotCount, slot, pool)
            slotCount += 1
            changed = slotCount
        }
    }

    /// From now on only the sender of the first datagram is heard.
    private func connectToFirst() {
        connectsFirst = false
        let length = unsafe Int(packets[0].address_length)
        let bytes = unsafe withUnsafeBytes(of: packets[0].address) { unsafe Array($0.prefix(length)) }
        guard let peer = SocketAddress(bytes: bytes) else { return }
        _ = unsafe peer.withPointer { unsafe connect(socket, $0, $1) }
    }

    @unsafe
    private func set(_ index: Int, _ slot: UInt32, _ pool: PacketPool) {
        unsafe slots[index] = slot
        unsafe packets[index].bytes = pool.slotBytes(slot).baseAddress
        unsafe packets[index].byte_count = UInt32(pool.slotByteCount)
    }

    /// What came too late to be read is neither lost nor dropped: it is counted, so that the account adds up.
    private func countUnread() {
        let wanted = slotCount
        guard wanted > 0 else { return }
        // A sender that goes on must not keep it here.
        for _ in 0..<10_000 {
            let status = unsafe cbatchio_receive(vectors, socket, packets, UInt32(wanted), UInt32(changed))
            changed = wanted
            guard status > 0 else { return }
            for index in 0..<Int(status) {
                let (bytes, segment) = unsafe (packets[index].byte_count, packets[index].segment)
                unread += segment == 0 ? 1 : Int64((bytes + UInt32(segment) - 1) / UInt32(segment))
                unsafe packets[index].byte_count = UInt32(pool?.slotByteCount ?? 0)
            }
        }
    }

    func report() -> SocketReport {
        var report = counters
        report.kernelToApplication = DelayQuantiles(kernelToApplication)
        report.interarrival = DelayQuantiles(interarrival)
        return report
    }

    func close() {
        guard !isClosed else { return }
        isClosed = true
        closed = Int64(bitPattern: cbatchio_real_ns())
        countUnread()
        // What was dropped after the last datagram that came is known here only.
        var memory = cbatchio_memory()
        if unsafe cbatchio_read_memory(socket, &memory) == 0 { counters.dropped = Int64(memory.dropped) }
        counters.usage = threadUsage()
        if let pool { for index in min(filled, slotCount)..<slotCount { pool.release(unsafe slots[index]) } }
        slotCount = 0
        context.descriptors.forget(socket)
        Libc.close(socket)
        options.report?.publish(report())
    }
}
