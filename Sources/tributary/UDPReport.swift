import ArgumentParser
import Foundation
import Lab
import Measures
import PipelineCore
import RateTest

/// A result of a rate test as text, JSON and CSV.
enum UDPReport {
    static func progress(_ progress: TestClient.Progress, _ plan: TestPlan) -> String {
        let seconds = decimal(Double(progress.elapsed) / 1e9, 1)
        let received = progress.status.isEmpty ? progress.received : progress.status.reduce(0) { $0 + $1.received }
        let missing = progress.status.reduce(0) { $0 + max(0, $1.nextExpected - $1.received) }
        return "\(seconds) s  sent \(count(progress.sent))  received \(count(received))  missing \(count(missing))"
    }

    static func text(_ result: TestResult) -> String {
        var lines: [String] = []
        for direction in result.directions {
            lines.append(title(direction, result))
            var table = TextTable(header: [
                "interval s", "sent", "received", "lost", "lost %", "dup", "reord", "Mbit/s", "kpps", "p50 us", "p99",
                "p99.99",
                "jitter",
            ])
            for row in direction.intervals(of: result.plan) { table.append(cells(row, result)) }
            table.append(cells(direction.total(of: result.plan), result))
            lines.append(table.text)
            lines += details(direction, result)
            lines.append("")
        }
        return lines.dropLast().joined(separator: "\n")
    }

    private static func title(_ direction: DirectionResult, _ result: TestResult) -> String {
        let plan = result.plan
        let way = direction.direction == .up ? "up (to the server)" : "down (from the server)"
        let rate = plan.rate.map { "\(decimal(Double($0) / 1e6, 3)) Mbit/s" } ?? "as fast as can be"
        let gso = plan.segments > 1 ? ", \(plan.segments) a super-packet" : ""
        return "\(way): \(plan.flows) flow\(plan.flows == 1 ? "" : "s"), datagrams of \(plan.size) B\(gso), \(rate)"
    }

    private static func cells(_ row: TestInterval, _ result: TestResult) -> [String] {
        let seconds = Double(row.end - row.begin) / 1e9
        func microseconds(_ value: Int64) -> String { value < 0 ? "-" : decimal(Double(value) / 1e3, 1) }
        let delay = clockTells(result) ? row.delay : row.delay.aboveLeast
        return [
            "\(decimal(Double(row.begin) / 1e9, 1))-\(decimal(Double(row.end) / 1e9, 1))", String(row.sent),
            String(row.received), String(row.lost),
            row.sent > 0 ? decimal(100 * Double(row.lost) / Double(row.sent), 3) : "-", String(row.duplicated),
            String(row.reordered), decimal(Double(row.byteCount) * 8 / seconds / 1e6, 1),
            decimal(Double(row.received) / seconds / 1e3, 1), microseconds(delay.p50), microseconds(delay.p99),
            microseconds(delay.p9999), microseconds(row.jitter),
        ]
    }

    /// Whether one-way delays mean something: the clocks are one, or differ by less than the delays.
    private static func clockTells(_ result: TestResult) -> Bool { result.clock.isShared }

    private static func details(_ direction: DirectionResult, _ result: TestResult) -> [String] {
        func microseconds(_ value: Int64) -> String { value < 0 ? "-" : decimal(Double(value) / 1e3, 1) }
        func row(_ name: String, _ quantiles: DelayQuantiles) -> String {
            "\(name): least \(microseconds(quantiles.least))  p50 \(microseconds(quantiles.p50))"
                + "  p90 \(microseconds(quantiles.p90))  p99 \(microseconds(quantiles.p99))"
                + "  p99.9 \(microseconds(quantiles.p999))  p99.99 \(microseconds(quantiles.p9999))"
                + "  most \(microseconds(quantiles.greatest)) us"
        }
        var lines: [String] = []
        let account = direction.account(of: result.plan)
        if direction.isComplete {
            lines.append(
                "account: sent \(account.sent) = received \(account.received) + lost on the path \(account.pathLost)"
                    + " + dropped by the socket \(account.socketDropped) + corrupted \(account.corrupted)"
                    + " + late \(account.late)"
            )
        } else {
            lines.append(
                "account: incomplete, one end has not told; sent \(account.sent), received \(account.received)"
            )
        }
        if account.refused > 0 { lines.append("refused by the sender's own system: \(account.refused)") }
        if account.foreign > 0 { lines.append("datagrams that are not of the test: \(account.foreign)") }
        if clockTells(result) {
            let end = result.plan.kernelStamps ? "the kernel's receive stamp" : "the application"
            lines.append(row("one-way delay to \(end) (one clock)", direction.delay))
        } else {
            lines.append(
                "one-way delay: two clocks, offset \(microseconds(result.clock.offset)) us"
                    + " ± \(microseconds(result.clock.error)) us; the columns are above the least"
            )
        }
        lines.append(row("delay variation above the least (PDV)", direction.delay.aboveLeast))
        for flow in direction.flows {
            guard let receiver = flow.receiver else { continue }
            if direction.flows.count == 1 {
                lines.append(row("between neighbours (IPDV, |difference|)", receiver.variation))
                if receiver.reorderingExtent.greatest >= 0 {
                    let extent = receiver.reorderingExtent
                    lines.append(
                        "reordering extent: p50 \(extent.p50)  p99 \(extent.p99)  most \(extent.greatest) datagrams"
                    )
                }
            }
            let sent = max(1, (flow.sender?.total.sent ?? 0) + (flow.sender?.warmUp.sent ?? 0))
            let came = max(1, receiver.total.received + receiver.warmUp.received)
            let sendTime = flow.sender.map { decimal(Double($0.usage.processorNanoseconds) / Double(sent), 0) } ?? "-"
            let receiveTime =
                flow.socket.map { decimal(Double($0.usage.processorNanoseconds) / Double(came), 0) } ?? "-"
            var line = "processor time a datagram: sender \(sendTime) ns, receiver \(receiveTime) ns"
            if direction.flows.count > 1 { line = "flow \(flow.flow): received \(receiver.total.received); " + line }
            lines.append(line)
        }
        return lines
    }

    static func json(_ result: TestResult) throws -> String {
        struct Direction: Encodable {
            var direction: TestPlan.Direction
            var isComplete: Bool
            var account: DirectionResult.Account
            var total: TestInterval
            var delay: DelayQuantiles
            var delayVariation: DelayQuantiles
            var intervals: [TestInterval]
            var flows: [FlowResult]
        }
        struct Whole: Encodable {
            var schema = 1
            var plan: TestPlan
            var clock: ClockRelation
            var ended: String?
            var warnings: [String]
            var directions: [Direction]
        }
        let whole = Whole(
            plan: result.plan,
            clock: result.clock,
            ended: result.ended,
            warnings: result.warnings,
            directions: result.directions.map {
                Direction(
                    direction: $0.direction,
                    isComplete: $0.isComplete,
                    account: $0.account(of: result.plan),
                    total: $0.total(of: result.plan),
                    delay: $0.delay,
                    delayVariation: $0.delay.aboveLeast,
                    intervals: $0.intervals(of: result.plan),
                    flows: $0.flows
                )
            }
        )
        return try encode(whole)
    }

    static func encode(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(value), as: UTF8.self)
    }

    static func writeCSV(_ result: TestResult, to path: String) throws {
        var lines = [
            "direction,begin_ns,end_ns,sent,received,lost,duplicated,reordered,late,payload_bytes,delay_least_ns,"
                + "delay_p50_ns,delay_p90_ns,delay_p99_ns,delay_p999_ns,delay_p9999_ns,delay_greatest_ns,jitter_ns"
        ]
        for direction in result.directions {
            for row in direction.intervals(of: result.plan) {
                let numbers: [Int64] = [
                    row.begin, row.end, row.sent, row.received, row.lost, row.duplicated, row.reordered, row.late,
                    row.byteCount, row.delay.least, row.delay.p50, row.delay.p90, row.delay.p99, row.delay.p999,
                    row.delay.p9999, row.delay.greatest, row.jitter,
                ]
                lines.append("\(direction.direction.rawValue)," + numbers.map(String.init).joined(separator: ","))
            }
        }
        do {
            try Data((lines.joined(separator: "\n") + "\n").utf8).write(to: URL(filePath: path), options: .atomic)
        } catch {
            Terminal.error("error: \(path): cannot be written: \(error.localizedDescription)")
            throw ExitCode(1)
        }
    }

    /// A number with thin groups of three: 12,345,678.
    static func count(_ value: Int64) -> String {
        var digits = Array(String(value.magnitude))
        var place = digits.count - 3
        while place > 0 {
            digits.insert(",", at: place)
            place -= 3
        }
        return (value < 0 ? "-" : "") + String(digits)
    }
}
