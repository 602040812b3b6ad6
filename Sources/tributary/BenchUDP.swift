import ArgumentParser
import Delivery
import Foundation
import Measures
import NetworkStages
import PipelineCore
import PipelineRuntime
import RateTest

extension Bench {
    /// The sending end of a raw flow; same options and output as the reference in C.
    struct UDPSend: AsyncParsableCommand {
        static let configuration = CommandConfiguration(commandName: "udp-send", abstract: "Send datagrams.")
        @Option var to: String
        @Option var size = 1_200
        @Option var seconds = 1.0
        @Option var gso = 1
        @Option var batch: Int?
        @Option var rate: Double?
        @Option var spinUs = 80
        @Option var cpu: Int?
        @Option var flow: UInt32 = 1

        func run() async throws {
            guard (32...65_507).contains(size), (1...128).contains(gso), gso * size <= 65_507 else {
                throw ValidationError("--size is 32 to 65507, --gso times --size at most 65507")
            }
            var lane = SendingLane(socket: try RawFlow.connected(to: to), flow: flow, size: size)
            lane.segments = gso
            lane.batch = batch ?? (gso > 1 ? 4 : 64)
            lane.pin = cpu
            if let rate {
                lane.rate = AdjustableRate(BitRate(bitsPerSecond: UInt64(rate * Double(size) * 8)))
            }
            let made = lane
            let outcomes = await RealTimeDriver(spinWindow: .microseconds(spinUs)).run(
                [LaneMaker { made.make() }],
                limits: RunLimits(duration: .seconds(seconds))
            )
            try Bench.check(outcomes)
            let report = lane.report.value
            Bench.printJSON([
                ("role", .text("send")), ("seconds", .number(max(1e-9, Double(report.span) / 1e9))),
                ("datagrams", .integer(report.total.sent)),
                ("bytes", .integer(report.total.byteCount)), ("calls", .integer(report.calls)),
                ("cpu_seconds", .number(Double(report.usage.processorNanoseconds) / 1e9)),
                ("runqueue_delay_seconds", .number(Double(report.usage.runQueueDelayNanoseconds) / 1e9)),
                ("segmentation_refused", .boolean(report.segmentationRefused)),
            ])
        }
    }

    /// The receiving end of a raw flow; same options and output as the reference in C.
    struct UDPReceive: AsyncParsableCommand {
        static let configuration = CommandConfiguration(commandName: "udp-receive", abstract: "Receive datagrams.")
        @Option var listen = "127.0.0.1:0"
        @Option var seconds = 1.0
        @Flag var gro = false
        @Option var batch: Int?
        @Option var wait = "spin"
        @Option var cpu: Int?
        @Flag var kernelStamps = false
        @Option var buffer: UInt64 = 8 << 20
        @Option var flow: UInt32 = 1

        func run() async throws {
            let (socket, address) = try RawFlow.bound(to: listen, receiveBuffer: ByteCount(buffer))
            var lane = ReceivingLane(socket: socket, flow: flow, size: 2_048)
            lane.gro = gro
            lane.batch = batch
            lane.kernelStamps = kernelStamps
            lane.receiveBuffer = ByteCount(buffer)
            lane.pin = cpu
            lane.isUnconnected = true
            let words = wait.split(separator: ":")
            guard let waiting = NetworkStages.UDPReceive.Waiting(rawValue: String(words.first ?? "")) else {
                throw ValidationError("--wait is spin, block or nap:MICROSECONDS")
            }
            lane.wait = waiting
            if words.count == 2, let microseconds = Int(words[1]) { lane.nap = .microseconds(microseconds) }
            let control = RunControl()
            let made = lane
            let watcher = Task {
                // Over when it is quiet: the sender has ended.
                while made.socketReport.value.receiveBuffer == 0 { try await Task.sleep(for: .milliseconds(1)) }
                Terminal.result("port \(address.split(separator: ":").last ?? "")")
                let patience = ContinuousClock.now.advanced(by: .seconds(10))
                while made.progress.value == 0, ContinuousClock.now < patience {
                    try await Task.sleep(for: .milliseconds(20))
                }
                let began = ContinuousClock.now
                var last: Int64 = 0
                var lastChange = began
                while began.duration(to: .now) < .seconds(seconds), lastChange.duration(to: .now) < .milliseconds(300) {
                    try await Task.sleep(for: .milliseconds(50))
                    guard made.progress.value != last else { continue }
                    last = made.progress.value
                    lastChange = .now
                }
                control.drain()
                return began.duration(to: lastChange) / .seconds(1)
            }
            let outcomes = await RealTimeDriver().run(
                [LaneMaker { made.make() }],
                limits: RunLimits(duration: .seconds(86_400)),
                control: control
            )
            let elapsed = try await watcher.value
            try Bench.check(outcomes)
            let report = lane.report.value
            let socketReport = lane.socketReport.value
            let summary = outcomes[0].summary["stages"]?["flow_stats"]?["flows"]?.items.first
            Bench.printJSON([
                ("role", .text("receive")), ("seconds", .number(elapsed)),
                ("datagrams", .integer(report.total.received)), ("bytes", .integer(report.total.byteCount)),
                ("lost", summary?["missing"] ?? .integer(-1)), ("duplicated", .integer(report.total.duplicated)),
                ("reordered", .integer(report.total.reordered)), ("corrupted", .integer(report.corrupted)),
                ("jitter_ns", .integer(report.jitter)), ("delay_p50_ns", .integer(report.delay.p50)),
                ("delay_p99_ns", .integer(report.delay.p99)), ("delay_p999_ns", .integer(report.delay.p999)),
                ("kernel_to_app_p50_ns", .integer(socketReport.kernelToApplication.p50)),
                ("kernel_to_app_p99_ns", .integer(socketReport.kernelToApplication.p99)),
                ("gap_p50_ns", .integer(socketReport.interarrival.p50)),
                ("gap_p99_ns", .integer(socketReport.interarrival.p99)),
                ("cpu_seconds", .number(Double(socketReport.usage.processorNanoseconds) / 1e9)),
                ("runqueue_delay_seconds", .number(Double(socketReport.usage.runQueueDelayNanoseconds) / 1e9)),
                ("calls", .integer(socketReport.calls)), ("messages", .integer(socketReport.messages)),
                ("socket_drops", .integer(socketReport.dropped)),
            ])
        }
    }

    static func check(_ outcomes: [RunOutcome]) throws {
        for error in outcomes.flatMap(\.errors) { Terminal.error("error: \(error.message)") }
        if outcomes.contains(where: { !$0.errors.isEmpty }) { throw ExitCode(1) }
    }

    static func printJSON(_ values: [(String, SummaryValue)]) {
        Terminal.result(SummaryValue.object(values.map { (key: $0.0, value: $0.1) }).json)
    }
}
