public import PipelineCore

/// What a stage did while its contract was checked.
public struct StageTrace: Sendable {
    /// Everything it passed on, with the time.
    public var passed: [(packet: PacketDescriptor, at: Timestamp)] = []
    /// What it reported.
    public var reports: [Report] = []
    /// Broken promises, in words. Empty is what a test wants.
    public var violations: [String] = []
    /// When it had nothing more to do.
    public var ended = Timestamp.zero
}

/// The contract that every stage of a kind keeps, checked before what is special about it.
///
/// Each check feeds a stage on the virtual timeline, turn by turn as its wakes ask, and watches for: a packet invented, a
/// wake in the past, no end, a stage that needs `start` to survive `finish`.
public enum Contract {
    /// Feeds packets to a scheduler and follows its wakes.
    ///
    /// - Parameters:
    ///   - packets: What is in its input from the start.
    ///   - react: Called with what it passed on at each turn; the reports it returns are learnt before the next.
    public static func check(
        _ scheduler: some Scheduler,
        packets: [PacketDescriptor],
        until end: Timestamp,
        learning first: [Report] = [],
        react: ([PacketDescriptor], Timestamp) -> [Report] = { _, _ in [] }
    ) -> StageTrace {
        follow(scheduler, packets: packets, until: end, learning: first, react: react) { input, output, now in
            scheduler.schedule(&input, into: &output, at: now)
        }
    }

    /// Feeds packets to a transport and follows its wakes.
    public static func check(
        _ transport: some Transport,
        packets: [PacketDescriptor],
        until end: Timestamp
    ) throws(StageError) -> StageTrace {
        try transport.start(at: .zero)
        var failure: StageError?
        var trace = follow(transport, packets: packets, until: end, learning: [], react: { _, _ in [] }) {
            input,
            output,
            now in
            do throws(StageError) {
                return try transport.transfer(&input, into: &output, at: now)
            } catch {
                failure = error
                return .finished
            }
        }
        if let failure { throw failure }
        for (packet, _) in trace.passed where packet.kind == .data || packet.kind == .done {
            if packet.arrived == .unset { trace.violations.append("chunk \(packet.sequence) came without a time") }
            if packet.departed > packet.arrived {
                trace.violations.append("chunk \(packet.sequence) came before it left")
            }
        }
        try transport.finish(at: trace.ended)
        return trace
    }

    private static func follow(
        _ stage: some Stage,
        packets: [PacketDescriptor],
        until end: Timestamp,
        learning first: [Report],
        react: ([PacketDescriptor], Timestamp) -> [Report],
        turn: (inout PacketBatch, inout PacketBatch, Timestamp) -> Wake
    ) -> StageTrace {
        let pool = PacketPool(slotCount: 1, slotByteCount: 64)
        var input = PacketBatch(capacity: max(packets.count, 1), pool: pool)
        var output = PacketBatch(capacity: 64, pool: pool)
        for packet in packets { input.append(packet) }
        var trace = StageTrace()
        var now = Timestamp.zero
        let learner = stage as? any Learner
        for report in first { learner?.learn(report) }
        for count in 0... {
            let wake = turn(&input, &output, now)
            var passed: [PacketDescriptor] = []
            do {
                let packets = output.descriptors
                for index in packets.indices { passed.append(packets[index]) }
            }
            output.removeAll()
            trace.passed += passed.map { ($0, now) }
            while let report = (stage as? any Reporter)?.nextReport() { trace.reports.append(report) }
            let reports = react(passed, now)
            for report in reports { learner?.learn(report) }
            trace.ended = now
            guard count < 1_000_000 else {
                trace.violations.append("no end after \(count) turns")
                break
            }
            if wake == .immediately || !reports.isEmpty { continue }
            guard case .at(let time) = wake else { break }
            if time < now { trace.violations.append("asked for \(time.nanoseconds) ns at \(now.nanoseconds) ns") }
            now = max(time, Timestamp(nanoseconds: now.nanoseconds + 1))
            if now > end { break }
        }
        return trace
    }
}

/// A sink that keeps every descriptor it sees.
public final class RecordingSink: Sink {
    public static let typeName = "recording"
    public struct Options: StageOptions {
        public init() {}
        public init(from reader: inout OptionReader) {}
    }
    public private(set) var packets: [PacketDescriptor] = []
    public init(options: Options = Options(), context: StageContext = StageContext()) {}
    public func consume(_ input: borrowing PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        let descriptors = input.descriptors
        for index in descriptors.indices { packets.append(descriptors[index]) }
        return .whenFed
    }
}

extension OptionReader {
    /// Options as a test writes them: `OptionReader(["rate": "8Mbit/s"])`.
    public init(_ options: KeyValuePairs<String, String>) {
        let mark = SourceMark(file: "test", line: 1, column: 1)
        self.init(.mapping(options.map { ($0.key, mark, .scalar($0.value, mark)) }, mark))
    }
}
