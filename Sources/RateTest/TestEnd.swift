import CBatchIO
import Delivery
import Measures
import NetworkStages
import PipelineCore
import PipelineRuntime

/// One end of a test that runs: its lanes, and what it says to the other end. The same at the client and at the server.
final class TestEnd {
    /// What somebody who looks on, or steers, wants to know while it runs.
    struct View {
        /// Nanoseconds since this end began.
        var elapsed: Int64
        /// Datagrams sent by this end so far, and received.
        var sent: Int64
        var received: Int64
        /// What the other end has said since the last view of what it receives; empty if nothing.
        var remote: [FlowStatus]
        /// What this end receives, when a status was due; empty if none was.
        var local: [FlowStatus]
    }

    private let plan: TestPlan
    private let connection: ControlConnection
    private let flows: [UInt32]
    private let senders = LaneRuns()
    private let receivers = LaneRuns()
    private var sendingLanes: [SendingLane] = []
    private var receivingLanes: [ReceivingLane] = []
    private var rates: [AdjustableRate] = []
    private var peerSent: [FlowEnd]?
    private var peerReceived: [FlowEnd]?
    private var remoteStatus: [FlowStatus] = []
    private var hasSaidSent = false
    private var hasSaidReceived = false
    private let sends: Bool
    private let receives: Bool

    /// - Parameters:
    ///   - sockets: Connected, one for each flow; they are this object's from now on.
    ///   - shift: What is added to the other end's clock to get this one's.
    ///   - begin: When this end begins to send, and when the other does, each by its own clock.
    ///   - pin: The processor to run all lanes on.
    init(
        plan: TestPlan,
        connection: ControlConnection,
        flows: [UInt32],
        sockets: [CInt],
        sends: Bool,
        receives: Bool,
        shift: Int64,
        begin: (own: Int64, other: Int64),
        pin: Int?
    ) throws(ControlFault) {
        self.plan = plan
        self.connection = connection
        self.flows = flows
        self.sends = sends
        self.receives = receives
        for (flow, socket) in zip(flows, sockets) {
            if sends {
                // A lane closes its socket: with both directions each has a descriptor of its own.
                var lane = SendingLane(
                    socket: receives ? Socket.duplicate(socket) : socket,
                    flow: flow,
                    size: plan.size
                )
                lane.segments = plan.segments
                lane.batch = plan.segments > 1 ? 4 : 64
                lane.first = begin.own
                lane.begin = begin.own + plan.warmUp
                lane.length = plan.duration
                lane.interval = .nanoseconds(plan.interval)
                lane.pin = pin
                if let rate = plan.rate {
                    let own = AdjustableRate(BitRate(bitsPerSecond: max(1, rate / UInt64(plan.flows))))
                    rates.append(own)
                    lane.rate = own
                }
                sendingLanes.append(lane)
            }
            if receives {
                var lane = ReceivingLane(socket: socket, flow: flow, size: plan.size)
                lane.gro = plan.gro
                lane.wait = UDPReceive.Waiting(rawValue: plan.wait) ?? .nap
                lane.kernelStamps = plan.kernelStamps
                lane.receiveBuffer = ByteCount(UInt64(plan.receiveBuffer))
                lane.begin = begin.other + shift + plan.warmUp
                lane.shift = shift
                lane.interval = .nanoseconds(plan.interval)
                lane.intervalLimit = Int((plan.duration + plan.interval - 1) / plan.interval)
                lane.statusInterval = min(50_000_000, plan.statusInterval)
                lane.pin = pin
                receivingLanes.append(lane)
            }
        }
        do throws(StageError) {
            for lane in receivingLanes {
                try receivers.start(flow: lane.flow, spin: .zero, duration: .seconds(1 << 20)) { lane.make() }
            }
            let length = max(0, begin.own - realNow()) + plan.warmUp + plan.duration
            for lane in sendingLanes {
                try senders.start(
                    flow: lane.flow,
                    spin: plan.rate == nil ? .zero : .microseconds(80),
                    duration: .nanoseconds(length)
                ) { lane.make() }
            }
        } catch {
            stop()
            throw ControlFault(error.message)
        }
    }

    /// The UDP payload rate of this end, all flows together.
    func setRate(_ rate: UInt64) {
        for own in rates { own.rate = BitRate(bitsPerSecond: max(1, rate / UInt64(max(1, plan.flows)))) }
    }

    /// Runs until both ends have told what they have.
    ///
    /// - Parameter look: Called every few milliseconds; its answer is a rate for the end that sends, if it steers.
    func run(isCancelled: () -> Bool = { false }, look: (View) -> UInt64? = { _ in nil }) throws(ControlFault) {
        defer { stop() }
        let began = monotonicNow()
        var deadline = began + plan.warmUp + plan.duration + plan.quiet + 10_000_000_000
        var nextStatus = began + plan.statusInterval
        var lastReceived: Int64 = -1
        var quietSince = began
        let tick = min(10_000_000, plan.statusInterval / 2)
        while !isDone {
            if let message = try connection.receive(within: tick) { try take(message) }
            let now = monotonicNow()
            if isCancelled() { throw ControlFault("interrupted") }
            // A lane that could not go on says little good of the way to the other end.
            if (senders.firstFault ?? receivers.firstFault) != nil { deadline = min(deadline, now + 3_000_000_000) }
            guard now < deadline else { throw ControlFault("the other end did not come to an end in time") }
            let received = receivingLanes.reduce(0) { $0 + $1.progress.value }
            if received != lastReceived {
                lastReceived = received
                quietSince = now
            }
            if sends, !hasSaidSent, senders.areDone { try say(.sent, sentEnds) }
            if receives, !hasSaidReceived { try finishReceiving(received, quiet: now - quietSince) }
            var local: [FlowStatus] = []
            if receives, now >= nextStatus, !hasSaidReceived {
                nextStatus += plan.statusInterval
                local = receivingLanes.map(\.status.value)
                var message = ControlMessage(.status)
                message.status = local
                try connection.send(message)
            }
            let view = View(
                elapsed: now - began,
                sent: sendingLanes.reduce(0) { $0 + $1.progress.value },
                received: received,
                remote: remoteStatus,
                local: local
            )
            remoteStatus = []
            if let rate = look(view) {
                if sends {
                    setRate(rate)
                } else {
                    var message = ControlMessage(.rate)
                    message.rate = rate
                    try connection.send(message)
                }
            }
        }
    }

    private var isDone: Bool { (!sends || peerReceived != nil) && (!receives || hasSaidReceived) }

    private func take(_ message: ControlMessage) throws(ControlFault) {
        switch message.kind {
        case .status: remoteStatus = message.status ?? []
        case .rate: if let rate = message.rate { setRate(min(rate, 1_000_000_000_000_000)) }
        case .sent: peerSent = message.ends ?? []
        case .received: peerReceived = message.ends ?? []
        case .error, .refused: throw ControlFault(message.reason ?? "the other end gave up without saying why")
        default: throw ControlFault("the other end said '\(message.kind.rawValue)' in the middle of a test")
        }
    }

    private func say(_ kind: ControlMessage.Kind, _ ends: [FlowEnd]) throws(ControlFault) {
        if kind == .sent { hasSaidSent = true } else { hasSaidReceived = true }
        var message = ControlMessage(kind)
        message.ends = ends
        try connection.send(message)
    }

    /// Ends the receiving lanes when all that was sent is there, or when it has been quiet for long enough.
    private func finishReceiving(_ received: Int64, quiet: Int64) throws(ControlFault) {
        if receivers.areDone {
            // A lane does not end by itself: it was told to, or it failed.
            return try say(.received, receivedEnds)
        }
        guard let peerSent else { return }
        let sent = peerSent.reduce(0) { $0 + ($1.sender?.total.sent ?? 0) + ($1.sender?.warmUp.sent ?? 0) }
        // A copy may still come after the last first copy.
        if quiet >= plan.quiet || (received >= sent && quiet >= min(plan.quiet, 20_000_000)) {
            receivers.control.drain()
        }
    }

    /// Ends all lanes and waits until they have.
    func stop() {
        senders.control.stop()
        receivers.control.stop()
        let deadline = monotonicNow() + 5_000_000_000
        while !(senders.areDone && receivers.areDone), monotonicNow() < deadline {
            Socket.pause(nanoseconds: 2_000_000)
        }
    }

    private var sentEnds: [FlowEnd] {
        sendingLanes.map { lane in
            var end = FlowEnd(flow: lane.flow)
            end.sender = lane.report.value
            end.fault = senders.fault(of: lane.flow)
            return end
        }
    }

    private var receivedEnds: [FlowEnd] {
        receivingLanes.map { lane in
            var end = FlowEnd(flow: lane.flow)
            end.receiver = lane.report.value
            end.socket = lane.socketReport.value
            end.fault = receivers.fault(of: lane.flow)
            return end
        }
    }

    /// What is known of the flows that this end sends, and of those that it receives. Whole after ``run``.
    var results: (sending: [FlowResult], receiving: [FlowResult]) {
        func join(_ sent: [FlowEnd], _ received: [FlowEnd]) -> [FlowResult] {
            flows.map { flow in
                var result = FlowResult(flow: flow)
                result.sender = sent.first { $0.flow == flow }?.sender
                let end = received.first { $0.flow == flow }
                result.receiver = end?.receiver
                result.socket = end?.socket
                return result
            }
        }
        return (
            sends ? join(sentEnds, peerReceived ?? []) : [],
            receives ? join(peerSent ?? [], receivedEnds) : []
        )
    }

    /// Why a lane of either end failed, if one did.
    var fault: String? {
        senders.firstFault ?? receivers.firstFault
            ?? ((peerSent ?? []) + (peerReceived ?? [])).lazy.compactMap(\.fault).first.map { "the other end: \($0)" }
    }
}
