import Delivery
package import Measures
public import PipelineCore

/// Tells of each flow of a rate test what became of it: received, duplicated, reordered, late, corrupted, with delays and
/// their variation, in all and for each interval of send time.
public final class FlowStats: Sink, Summarizing {
    public static let typeName = "flow_stats"

    public struct Options: StageOptions {
        /// The length of an interval.
        public var interval: Duration
        /// The most flows that are told apart; datagrams of others count as foreign.
        public var flows: Int
        /// The only flow that counts, and where its report goes when the lane ends.
        package var only: UInt32?
        /// When measuring begins, in nanoseconds of CLOCK_REALTIME of the sender.
        package var begin: Int64?
        /// What is added to a send time to bring it onto this machine's clock.
        package var shift: Int64 = 0
        package var intervalLimit = 100_000
        package var report: Published<ReceiverReport>?
        package var status: Published<FlowStatus>?
        /// How often, in nanoseconds.
        package var statusInterval: Int64 = 50_000_000
        /// First copies so far, told once a batch.
        package var progress: PublishedCount?

        public init(from reader: inout OptionReader) {
            interval = reader.read("interval", default: .seconds(1), in: .milliseconds(1)...(.seconds(86_400)))
            flows = reader.read("flows", default: 64, in: 1...4_096)
        }
    }

    public static func demands(of options: Options) -> StageDemands {
        var demands = StageDemands()
        demands.needsBytes = true
        return demands
    }

    private let options: Options
    private let wallClock: WallClock
    private var flows: [FlowState] = []
    private var current: FlowState?
    private var foreign: Int64 = 0
    private var corrupted: Int64 = 0
    private var nextStatus = Timestamp.unset

    public init(options: Options, context: StageContext) {
        self.options = options
        wallClock = WallClock.of(context.shared)
    }

    public func start(at now: Timestamp) throws(StageError) {
        if let only = options.only { current = flow(only) }
    }

    public func consume(_ input: borrowing PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        // Send times are of the wall clock. The capture has told by now, if it knows one.
        let origin = wallClock.offset ?? 0
        var index = 0
        var offset = 0
        while index < input.count {
            if let current {
                current.take(input, &index, &offset, origin: origin, shift: options.shift)
                guard index < input.count else { break }
            }
            stepOver(input, &index, &offset)
        }
        if let current {
            options.progress?.publish(current.receivedCount)
            if let status = options.status, now >= nextStatus {
                nextStatus = Timestamp(nanoseconds: now.nanoseconds + options.statusInterval)
                // By arrival, not by the clock: a lane that was not run for a while must not make a second look rich.
                let arrived = input.isEmpty ? now : input.descriptors[input.count - 1].arrived
                status.publish(current.status(at: arrived == .unset ? now : arrived))
            }
        }
        return .whenFed
    }

    /// Deals with a datagram that is not of the current flow, or not whole.
    private func stepOver(_ input: borrowing PacketBatch, _ index: inout Int, _ offset: inout Int) {
        let packet = input.descriptors[index]
        let bytes = input.payload(at: index)
        let segment = packet.segment == 0 ? bytes.byteCount : Int(packet.segment)
        let length = min(max(segment, 1), bytes.byteCount - offset)
        let header = try? WireHeader.read(bytes, at: offset)
        if let header, header.type == .data, header.flags == [], header.objectOffset == 0,
            Int(header.payloadByteCount) == length - WireHeader.byteCount
        {
            // Whole: of another flow, then.
            if options.only == nil, let next = flow(header.flow), next !== current {
                current = next
                return
            }
            foreign += 1
        } else if let header, flows.contains(where: { $0.flow == header.flow }) {
            corrupted += 1
        } else {
            foreign += 1
        }
        offset += length
        if offset >= bytes.byteCount {
            index += 1
            offset = 0
        }
    }

    private func flow(_ id: UInt32) -> FlowState? {
        if let known = flows.first(where: { $0.flow == id }) { return known }
        guard flows.count < options.flows else { return nil }
        let state = FlowState(
            flow: id,
            account: DatagramAccount(
                begin: options.begin,
                intervalLength: Timestamp.zero.advanced(by: options.interval).nanoseconds,
                intervalLimit: options.intervalLimit
            )
        )
        flows.append(state)
        return state
    }

    private func report(of flow: FlowState) -> ReceiverReport {
        var report = flow.report()
        report.corrupted = corrupted
        report.foreign = foreign
        return report
    }

    public func finish(at now: Timestamp) throws(StageError) {
        guard let current else { return }
        options.report?.publish(report(of: current))
        options.status?.publish(current.status(at: now))
    }

    public func summary() -> [(key: String, value: SummaryValue)] {
        let list = flows.map { flow -> SummaryValue in
            let report = flow.report()
            let values: [(String, Int64)] = [
                ("flow", Int64(flow.flow)), ("received", report.total.received),
                ("duplicated", report.total.duplicated), ("reordered", report.total.reordered),
                ("late", report.total.late), ("missing", flow.missing), ("bytes", report.total.byteCount),
                ("jitter_ns", report.jitter), ("delay_p50_ns", report.delay.p50), ("delay_p99_ns", report.delay.p99),
                ("delay_p9999_ns", report.delay.p9999), ("ipdv_p99_ns", report.variation.p99),
                ("pdv_p99_ns", report.delay.aboveLeast.p99),
            ]
            return .object(values.map { (key: $0.0, value: .integer($0.1)) })
        }
        return [
            (key: "flows", value: .list(list)), (key: "corrupted", value: .integer(corrupted)),
            (key: "foreign", value: .integer(foreign)),
        ]
    }
}

/// One flow's account: one object, entered once a batch.
private final class FlowState {
    let flow: UInt32
    private let firstWord: UInt64
    private var account: DatagramAccount

    init(flow: UInt32, account: consuming DatagramAccount) {
        self.flow = flow
        self.account = account
        firstWord = TestDatagram.firstWord(flow: flow)
    }

    /// Takes datagrams of the flow from the batch, as far as they follow each other.
    func take(
        _ input: borrowing PacketBatch,
        _ index: inout Int,
        _ offset: inout Int,
        origin: Int64,
        shift: Int64
    ) {
        Self.take(input, &index, &offset, origin: origin, shift: shift, firstWord: firstWord, into: &account)
    }

    private static func take(
        _ input: borrowing PacketBatch,
        _ index: inout Int,
        _ offset: inout Int,
        origin: Int64,
        shift: Int64,
        firstWord: UInt64,
        into account: inout DatagramAccount
    ) {
        let descriptors = input.descriptors
        while index < descriptors.count {
            let packet = descriptors[index]
            let bytes = input.payload(at: index)
            offset = TestDatagram.receive(
                bytes,
                segment: packet.segment == 0 ? bytes.byteCount : Int(packet.segment),
                from: offset,
                firstWord: firstWord,
                arrived: packet.arrived.nanoseconds &+ origin,
                shift: shift,
                into: &account
            )
            guard offset >= bytes.byteCount else { return }
            index += 1
            offset = 0
        }
    }

    var receivedCount: Int64 { account.firstCopyCount }
    func status(at now: Timestamp) -> FlowStatus {
        var status = account.status()
        status.time = now.nanoseconds
        return status
    }

    /// Numbers up to the largest seen that did not come, warm-up included.
    var missing: Int64 {
        Int64(clamping: account.nextExpected) - account.total.received - account.warmUp.received
    }

    func report() -> ReceiverReport {
        account.settle()
        var report = ReceiverReport()
        report.warmUp = account.warmUp
        report.intervals = account.intervals
        report.total = account.total
        report.delay = account.delayQuantiles
        report.variation = account.variationQuantiles
        report.reorderingExtent = account.extentQuantiles
        report.jitter = account.jitter
        account.forEachDelay { report.delayBuckets.append([$0, $1]) }
        return report
    }
}
