import CBatchIO
import Delivery
package import Measures
public import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Which socket a stage of a rate test uses.
public enum TestSocket: Sendable {
    /// One that the stage opens.
    case open
    /// One that is open and connected, and is the stage's from now on.
    case adopted(CInt)
}

/// Sends datagrams, many in a system call: writes each one's header, stamped as it goes, and passes the packet on.
///
/// Trains go as super-packets that the kernel cuts (UDP_SEGMENT); a kernel or device that refuses makes it send them one by
/// one, and says so. What the socket does not take stays with the stage before it.
public final class UDPSend: Transport, Summarizing {
    public static let typeName = "udp_send"

    public struct Options: StageOptions {
        /// Where to, `HOST:PORT`.
        public var to: String
        /// Bytes that the kernel may hold.
        public var sendBuffer: ByteCount
        /// The processor to run the lane on.
        public var pin: Int?
        /// The length of an interval of the counts.
        public var interval: Duration
        package var socket = TestSocket.open
        /// When measuring begins, in nanoseconds of CLOCK_REALTIME; `nil`: with the first datagram.
        package var begin: Int64?
        /// After that long nothing is sent any more, in nanoseconds from `begin`.
        package var length: Int64?
        package var report: Published<SenderReport>?
        package var progress: PublishedCount?

        /// All defaults.
        public init() {
            var reader = OptionReader.describing()
            self.init(from: &reader)
        }

        public init(from reader: inout OptionReader) {
            to = reader.require("to", placeholder: "")
            sendBuffer = reader.read("send_buffer", default: .mebibytes(4), in: .kibibytes(4)...(.mebibytes(1_024)))
            pin = reader.optional("pin")
            interval = reader.read("interval", default: .seconds(1), in: .milliseconds(1)...(.seconds(86_400)))
        }
    }

    public static func demands(of options: Options) -> StageDemands {
        var demands = StageDemands()
        demands.needsRealTime = true
        demands.needsBytes = true
        return demands
    }

    /// How long the system may refuse everything before the run has failed.
    static let patience: Int64 = 3_000_000_000

    private let options: Options
    private let context: StageContext
    private var state: UDPSendState?

    public init(options: Options, context: StageContext) {
        self.options = options
        self.context = context
    }

    public func start(at now: Timestamp) throws(StageError) {
        var family = AF_INET
        let socket: CInt
        switch options.socket {
        case .adopted(let descriptor):
            socket = descriptor
            family = Socket.localAddress(of: descriptor)?.family ?? AF_INET
        case .open:
            let address = try SocketAddress.resolve(options.to, stream: false, passive: false)[0]
            family = address.family
            socket = try Socket.open(address.family, stream: false)
            guard unsafe address.withPointer({ unsafe connect(socket, $0, $1) }) == 0 else {
                let number = errno
                Libc.close(socket)
                throw StageError(.systemCall, "cannot reach \(address): \(Socket.message(number))", errno: number)
            }
            _ = cbatchio_configure(socket, family, UInt32(CBATCHIO_DONT_FRAGMENT))
            if let entry = address.socketEntry("udp") { SocketBoard.of(context.shared).note(entry) }
        }
        _ = cbatchio_set_send_buffer(socket, CInt(clamping: options.sendBuffer.bytes))
        do throws(StageError) {
            try pinLane(options.pin)
        } catch {
            Libc.close(socket)
            throw error
        }
        state = try UDPSendState(socket: socket, family: family, options: options, context: context, now: now)
    }

    public func transfer(
        _ input: inout PacketBatch,
        into output: inout PacketBatch,
        at now: Timestamp
    ) throws(StageError) -> Wake {
        guard let state else { return .whenFed }
        return try state.send(&input, into: &output, at: now)
    }

    public func finish(at now: Timestamp) throws(StageError) {
        state?.close()
    }

    public func summary() -> [(key: String, value: SummaryValue)] {
        guard let report = state?.report() else { return [] }
        return [
            (key: "sent", value: .integer(report.total.sent + report.warmUp.sent)),
            (key: "sent_bytes", value: .integer(report.total.byteCount + report.warmUp.byteCount)),
            (key: "refused", value: .integer(report.total.refused + report.warmUp.refused)),
            (key: "calls", value: .integer(report.calls)), (key: "full_buffers", value: .integer(report.fullBuffers)),
            (key: "no_buffers", value: .integer(report.noBuffers)),
            (key: "unreachable", value: .integer(report.unreachable)),
            (key: "segmentation_refused", value: .boolean(report.segmentationRefused)),
            (key: "processor_ns", value: .integer(report.usage.processorNanoseconds)),
        ]
    }
}

/// Binds the lane's thread to a processor, if one is asked for, and has the kernel wake it on time.
func pinLane(_ processor: Int?) throws(StageError) {
    cbatchio_set_timer_slack(1)
    guard let processor else { return }
    let status = cbatchio_pin_thread(CInt(clamping: processor))
    guard status == 0 else {
        throw StageError(
            .systemCall,
            "cannot run on processor \(processor): \(Socket.message(-status))",
            errno: -status
        )
    }
}

/// Processor time of the calling thread.
func threadUsage() -> ThreadUsage {
    var raw = cbatchio_thread_usage()
    unsafe cbatchio_read_thread_usage(&raw)
    var usage = ThreadUsage()
    usage.processorNanoseconds = raw.processor_ns
    usage.runQueueDelayNanoseconds = raw.run_queue_delay_ns
    return usage
}

/// The socket, its vectors and its counts: one object, entered once a batch.
@safe
private final class UDPSendState {
    private static let vectorCount = 1_024
    private let socket: CInt
    private let family: CInt
    private let options: UDPSend.Options
    private let context: StageContext
    private let vectors: OpaquePointer
    private let messages: UnsafeMutablePointer<cbatchio_packet>
    private let origin: Int64
    private var account: DepartureAccount
    private var counters = SenderReport()
    private var cutsByHand = false
    /// Datagrams of the first packet that have gone already, when trains go one by one.
    private var goneOfFirst = 0
    private var failingSince: Int64?
    private var isWaiting = false
    private var isClosed = false
    private var templates: UnsafeMutablePointer<Template> = .allocate(capacity: 1)
    private var templateCount = 0
    private var sentInAll: Int64 = 0
    private var firstTime: Int64?
    private var lastTime: Int64 = 0

    init(socket: CInt, family: CInt, options: UDPSend.Options, context: StageContext, now: Timestamp) throws(StageError)
    {
        guard let vectors = unsafe cbatchio_create(UInt32(Self.vectorCount)) else {
            throw StageError(.resourceExhausted, "no memory for the vectors of a socket")
        }
        unsafe self.vectors = vectors
        unsafe messages = .allocate(capacity: Self.vectorCount)
        unsafe messages.initialize(repeating: cbatchio_packet(), count: Self.vectorCount)
        self.socket = socket
        self.family = family
        self.options = options
        self.context = context
        origin = WallClock.of(context.shared).origin(now: now, wall: cbatchio_real_ns())
        account = DepartureAccount(
            begin: options.begin,
            intervalLength: Timestamp.zero.advanced(by: options.interval).nanoseconds
        )
    }

    deinit {
        unsafe cbatchio_destroy(vectors)
        unsafe messages.deallocate()
        unsafe templates.deallocate()
    }

    func send(_ input: inout PacketBatch, into output: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake
    {
        if isWaiting, context.descriptors.ready.contains(where: { $0.descriptor == socket }) {
            context.descriptors.watch(socket, for: [])
            isWaiting = false
        }
        let limit = min(input.count, output.freeCapacity)
        guard limit > 0 else { return .whenFed }
        let time = Int64(bitPattern: cbatchio_real_ns())
        if let length = options.length, let begin = options.begin, time - begin >= length {
            input.removeAll()
            return .finished
        }
        let count = prepare(input, limit, time)
        counters.calls += 1
        let status = unsafe cbatchio_send(vectors, socket, messages, UInt32(count))
        guard status > 0 else { return try failed(-status, &input, at: now, time) }
        failingSince = nil
        if firstTime == nil { firstTime = time }
        lastTime = time
        let packets = settle(&input, Int(status), time)
        do {
            var descriptors = input.mutableDescriptors
            let departed = Timestamp(nanoseconds: time - origin)
            for index in 0..<packets { descriptors[index].departed = departed }
        }
        input.moveFirst(packets, to: &output)
        options.progress?.publish(sentInAll)
        return .immediately
    }

    /// Writes headers and vectors for as many packets as there are vectors for.
    ///
    /// - Returns: Messages.
    private func prepare(_ input: borrowing PacketBatch, _ limit: Int, _ time: Int64) -> Int {
        let descriptors = input.descriptors
        let stamp = UInt64(bitPattern: time)
        var count = 0
        for index in 0..<limit {
            let packet = descriptors[index]
            guard let bytes = unsafe input.mutableBytes(at: index) else { continue }
            let byteCount = Int(packet.byteCount)
            let segment = packet.segment == 0 ? byteCount : Int(packet.segment)
            unsafe writeHeaders(of: packet, at: bytes, stamp, input.slot(at: index), input.pool.slotCount)
            guard cutsByHand, packet.segment != 0 else {
                guard count < Self.vectorCount else { break }
                unsafe messages[count].bytes = bytes
                unsafe messages[count].byte_count = packet.byteCount
                unsafe messages[count].segment = packet.segment
                count += 1
                continue
            }
            var skipped = index == 0 ? goneOfFirst : 0
            var offset = 0
            while offset < byteCount, count < Self.vectorCount {
                let length = min(segment, byteCount - offset)
                if skipped > 0 {
                    skipped -= 1
                } else {
                    unsafe messages[count].bytes = bytes + offset
                    unsafe messages[count].byte_count = UInt32(length)
                    unsafe messages[count].segment = 0
                    count += 1
                }
                offset += length
            }
            if count == Self.vectorCount { break }
        }
        return count
    }

    /// Writes all headers of a packet; of a slot that went before with the same shape only what changes.
    @unsafe @inline(__always)
    private func writeHeaders(
        of packet: PacketDescriptor,
        at bytes: UnsafeMutableRawPointer,
        _ stamp: UInt64,
        _ slot: UInt32,
        _ slotCount: Int
    ) {
        if templateCount != slotCount { makeTemplates(slotCount) }
        let shape = Template(stream: packet.stream, byteCount: packet.byteCount, segment: packet.segment)
        let word = TestDatagram.firstWord(flow: packet.stream)
        // Somebody may have written into the slot in between: then its first header tells.
        guard unsafe templates[Int(slot)] == shape, unsafe bytes.loadUnaligned(as: UInt64.self) == word.bigEndian else {
            unsafe UDPSend.writeHeaders(of: packet, at: bytes, stamp)
            unsafe templates[Int(slot)] = shape
            return
        }
        let segment = packet.segment == 0 ? Int(packet.byteCount) : Int(packet.segment)
        let time = stamp.bigEndian
        var sequence = packet.sequence
        var header = unsafe bytes
        let end = unsafe bytes + Int(packet.byteCount)
        while unsafe header < end {
            unsafe header.storeBytes(of: sequence.bigEndian, toByteOffset: 8, as: UInt64.self)
            unsafe header.storeBytes(of: time, toByteOffset: 16, as: UInt64.self)
            sequence &+= 1
            unsafe header += segment
        }
    }

    /// What the headers in a slot were written for.
    private struct Template: Equatable {
        var stream: UInt32 = 0
        var byteCount: UInt32 = 0
        var segment: UInt16 = 0
    }

    private func makeTemplates(_ count: Int) {
        unsafe templates.deallocate()
        unsafe templates = .allocate(capacity: count)
        unsafe templates.initialize(repeating: Template(), count: count)
        templateCount = count
    }

    /// Counts the messages that went.
    ///
    /// - Returns: The packets that have gone whole.
    private func settle(_ input: inout PacketBatch, _ sent: Int, _ time: Int64) -> Int {
        var departures = IntervalDepartures()
        var packets = 0
        do {
            let descriptors = input.descriptors
            if !cutsByHand {
                packets = sent
                for index in 0..<packets {
                    departures.sent += Int64(descriptors[index].datagramCount)
                    departures.byteCount += Int64(descriptors[index].byteCount)
                }
            } else {
                for index in 0..<sent { unsafe departures.byteCount += Int64(messages[index].byte_count) }
                departures.sent = Int64(sent)
                var left = sent
                while packets < descriptors.count, left >= descriptors[packets].datagramCount - goneOfFirst {
                    left -= descriptors[packets].datagramCount - goneOfFirst
                    goneOfFirst = 0
                    packets += 1
                }
                goneOfFirst += left
            }
        }
        sentInAll += departures.sent
        account.add(departures, sentAt: time)
        return packets
    }

    /// What the system's refusal means.
    private func failed(_ number: CInt, _ input: inout PacketBatch, at now: Timestamp, _ time: Int64) throws(StageError)
        -> Wake
    {
        func later(_ nanoseconds: Int64) -> Wake { .at(Timestamp(nanoseconds: now.nanoseconds + nanoseconds)) }
        switch number {
        case 0, EAGAIN, EINTR:
            counters.fullBuffers += 1
            context.descriptors.watch(socket, for: .write)
            isWaiting = true
            return .whenFed
        case ENOBUFS, ENOMEM:
            counters.noBuffers += 1
            return later(100_000)
        case ECONNREFUSED:
            // News of an earlier datagram: nothing was sent by this call, and the next one may.
            counters.unreachable += 1
            return .immediately
        case EPERM:
            // A rule of this machine's own firewall: this datagram will never go.
            var refused = IntervalDepartures()
            refused.refused = 1
            var isWhole = true
            do {
                let descriptors = input.descriptors
                if cutsByHand, descriptors[0].segment != 0 {
                    goneOfFirst += 1
                    isWhole = goneOfFirst == descriptors[0].datagramCount
                } else {
                    refused.refused = Int64(descriptors[0].datagramCount)
                }
            }
            account.add(refused, sentAt: time)
            if isWhole {
                goneOfFirst = 0
                input.removeFirst(1)
            }
            return .immediately
        case EIO, EINVAL:
            guard !cutsByHand else { break }
            // No checksum offload, or segments that do not fit: once, and said in the summary.
            cutsByHand = true
            counters.segmentationRefused = true
            return .immediately
        case EMSGSIZE:
            let mtu = cbatchio_path_mtu(socket, family)
            var size = 0
            do {
                let packet = input.descriptors[0]
                size = packet.segment == 0 ? Int(packet.byteCount) : Int(packet.segment)
            }
            throw StageError(
                .systemCall,
                "datagrams of \(size) bytes do not fit the path: its MTU is \(mtu), which leaves "
                    + "\(Int(mtu) - UDPSend.overhead(family)) bytes",
                errno: number
            )
        case ENETUNREACH, EHOSTUNREACH, ENETDOWN, EHOSTDOWN, ENODEV, EADDRNOTAVAIL:
            counters.unreachable += 1
            let since = failingSince ?? now.nanoseconds
            failingSince = since
            guard now.nanoseconds - since > UDPSend.patience else { return later(10_000_000) }
        default: break
        }
        throw StageError(.systemCall, "cannot send: \(Socket.message(number))", errno: number)
    }

    func report() -> SenderReport {
        var report = counters
        report.warmUp = account.warmUp
        report.intervals = account.intervals
        report.total = account.total
        report.span = firstTime.map { lastTime - $0 } ?? 0
        if !isClosed { report.usage = threadUsage() }
        return report
    }

    func close() {
        guard !isClosed else { return }
        counters.usage = threadUsage()
        isClosed = true
        context.descriptors.forget(socket)
        Libc.close(socket)
        options.report?.publish(report())
    }
}

extension UDPSend {
    /// Writes the header of every datagram of a packet.
    @unsafe @inline(__always)
    fileprivate static func writeHeaders(
        of packet: PacketDescriptor,
        at bytes: UnsafeMutableRawPointer,
        _ stamp: UInt64
    ) {
        let word = TestDatagram.firstWord(flow: packet.stream)
        let byteCount = Int(packet.byteCount)
        let segment = packet.segment == 0 ? byteCount : Int(packet.segment)
        var offset = 0
        var sequence = packet.sequence
        while offset < byteCount {
            let length = min(segment, byteCount &- offset)
            unsafe TestDatagram.store(
                into: bytes + offset,
                firstWord: word,
                sequence: sequence,
                sendTime: stamp,
                byteCount: length
            )
            sequence &+= 1
            offset &+= length
        }
    }

    /// Writes all headers of a batch, as if it were sent at `now`; for measuring that alone.
    ///
    /// - Returns: Datagrams.
    package static func writeHeaders(_ batch: borrowing PacketBatch, at now: Timestamp) -> Int {
        let packets = batch.descriptors
        var count = 0
        for index in packets.indices {
            guard let bytes = unsafe batch.mutableBytes(at: index) else { continue }
            unsafe writeHeaders(of: packets[index], at: bytes, UInt64(now.nanoseconds))
            count += packets[index].datagramCount
        }
        return count
    }

    /// Bytes of the headers of UDP and IP.
    package static func overhead(_ family: CInt) -> Int { family == AF_INET6 ? 48 : 28 }
}
