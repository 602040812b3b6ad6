import CBatchIO
public import Delivery
import MeasureStages
public import Measures
public import NetworkStages
public import PipelineCore
public import PipelineRuntime

/// The lane that sends one flow of a test: `generator` → `pacer` → `udp_send` → `null`.
public struct SendingLane: Sendable {
    /// A connected socket; the lane closes it.
    public var socket: CInt
    public var flow: UInt32
    /// UDP payload of a datagram.
    public var size: Int
    /// Datagrams of a train, 1 for none.
    public var segments = 1
    /// Trains, or datagrams, of a system call.
    public var batch = 64
    /// UDP payload bits a second; `nil`: as fast as can be.
    public var rate: AdjustableRate?
    /// CLOCK_REALTIME in nanoseconds: when sending begins (`first`), and when measuring does (`begin`).
    public var first: Int64?
    public var begin: Int64?
    /// Nanoseconds from `begin` to the end; `nil`: until it is told.
    public var length: Int64?
    public var interval = Duration.seconds(1)
    public var pin: Int?
    public var report = Published(SenderReport())
    public var progress = PublishedCount()

    public init(socket: CInt, flow: UInt32, size: Int) {
        self.socket = socket
        self.flow = flow
        self.size = size
    }

    /// Makes the lane, on the thread that runs it.
    public func make() -> Lane {
        let pool = PacketPool(slotCount: 3 * batch, slotByteCount: segments * size, isTouched: true)
        var context = StageContext(name: "flow/generator")
        let shared = context.shared
        var generate = Generator.Options(size: size, segments: segments, flow: flow, batch: batch)
        generate.first = first
        let generator = Generator(options: generate, context: context)
        var send = UDPSend.Options()
        send.socket = .adopted(socket)
        send.begin = begin
        send.length = length
        send.interval = interval
        send.pin = pin
        send.report = report
        send.progress = progress
        var links: [Lane.Room<Lane.Link>] = []
        if let rate {
            // A burst of one message: every message is due on its own. A second of slack keeps the average exact.
            let bucket = AdjustableTokenBucket(rate, burst: 1, slack: .seconds(1))
            links.append(
                Lane.Room(name: "pacer", stage: .scheduler(Pacer(controller: bucket)), descriptors: Descriptors())
            )
        }
        context = StageContext(name: "flow/udp_send", shared: shared)
        links.append(
            Lane.Room(
                name: "udp_send",
                stage: .transport(UDPSend(options: send, context: context)),
                descriptors: context.descriptors
            )
        )
        var none = OptionReader.describing()
        return Lane(
            name: "flow \(flow)",
            capture: Lane.Room(name: "generator", stage: generator, descriptors: Descriptors()),
            links: links,
            sinks: [
                Lane.Room(
                    name: "null",
                    stage: NullSink(options: NullSink.Options(from: &none), context: context),
                    descriptors: Descriptors()
                )
            ],
            batchCapacity: batch,
            pool: pool
        )
    }
}

/// The lane that receives one flow of a test: `udp_receive` → `flow_stats`.
public struct ReceivingLane: Sendable {
    /// A bound socket; the lane closes it.
    public var socket: CInt
    public var flow: UInt32
    /// Room for a datagram when the kernel does not join them.
    public var size: Int
    public var gro = true
    public var wait = UDPReceive.Waiting.nap
    public var nap = Duration.microseconds(200)
    /// Messages of a system call; `nil`: 64 with GRO, 256 without.
    public var batch: Int?
    public var kernelStamps = true
    public var receiveBuffer = ByteCount.mebibytes(8)
    /// Whether the socket is not connected yet, and is to be to the first sender.
    public var isUnconnected = false
    public var pin: Int?
    /// When measuring begins, by the sender's clock; `nil`: with the first datagram.
    public var begin: Int64?
    /// What is added to send times to bring them onto this machine's clock.
    public var shift: Int64 = 0
    public var interval = Duration.seconds(1)
    public var intervalLimit = 100_000
    public var socketReport = Published(SocketReport())
    public var report = Published(ReceiverReport())
    public var status = Published(FlowStatus())
    /// How often the status is told, in nanoseconds.
    public var statusInterval: Int64 = 50_000_000
    public var progress = PublishedCount()

    public init(socket: CInt, flow: UInt32, size: Int) {
        self.socket = socket
        self.flow = flow
        self.size = size
    }

    /// Makes the lane, on the thread that runs it.
    public func make() -> Lane {
        let batch = batch ?? (gro ? 64 : 256)
        // No shorter than the size; what is longer is cut by the kernel, and counted as that.
        let room = gro ? 65_536 : max(2_048, (size + 1_023) / 1_024 * 1_024)
        let pool = PacketPool(slotCount: 2 * batch, slotByteCount: room, isTouched: true)
        let context = StageContext(name: "flow/udp_receive")
        var receive = UDPReceive.Options()
        receive.socket = .adopted(socket)
        receive.gro = gro
        receive.wait = wait
        receive.nap = nap
        receive.batch = batch
        receive.kernelStamps = kernelStamps
        receive.receiveBuffer = receiveBuffer
        receive.single = isUnconnected
        receive.pin = pin
        receive.report = socketReport
        var reader = OptionReader.describing()
        var stats = FlowStats.Options(from: &reader)
        stats.interval = interval
        stats.only = flow
        stats.begin = begin
        stats.shift = shift
        stats.intervalLimit = intervalLimit
        stats.report = report
        stats.status = status
        stats.statusInterval = statusInterval
        stats.progress = progress
        return Lane(
            name: "flow \(flow)",
            capture: Lane.Room(
                name: "udp_receive",
                stage: UDPReceive(options: receive, context: context),
                descriptors: context.descriptors
            ),
            links: [],
            sinks: [
                Lane.Room(
                    name: "flow_stats",
                    stage: FlowStats(
                        options: stats,
                        context: StageContext(name: "flow/flow_stats", shared: context.shared)
                    ),
                    descriptors: Descriptors()
                )
            ],
            batchCapacity: batch,
            pool: pool
        )
    }
}
