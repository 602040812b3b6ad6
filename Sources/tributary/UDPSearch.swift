public import ArgumentParser
import Foundation
import Lab
import Measures
import PipelineRuntime
public import RateTest

extension UDPTest {
    /// Searches for the highest rate.
    func perform(_ search: Search, _ client: TestClient, _ plan: TestPlan, _ control: RunControl) async throws {
        guard direction != .both else {
            throw ValidationError("--search goes one way at a time: --direction up or down")
        }
        guard (0..<1).contains(loss) else { throw ValidationError("--loss is a ratio, from 0 to less than 1") }
        let outcome = await blocking { () -> Result<String, SearchFailure> in
            do throws(SearchFailure) {
                switch search {
                case .ndr: return .success(try searchThroughput(client, plan, control))
                case .capacity: return .success(try searchCapacity(client, plan, control))
                }
            } catch {
                return .failure(error)
            }
        }
        switch outcome {
        case .success(let text): Terminal.result(text)
        case .failure(let failure):
            if let text = failure.partial { Terminal.result(text) }
            Terminal.error("error: \(failure.reason)")
            throw ExitCode(control.state == .running ? 1 : 130)
        }
    }

    /// Why a search did not come to its end, and what it had found.
    struct SearchFailure: Error {
        var reason: String
        var partial: String?
    }

    // MARK: Throughput

    private func searchThroughput(
        _ client: TestClient,
        _ plan: TestPlan,
        _ control: RunControl
    ) throws(SearchFailure) -> String {
        var settings = ThroughputSearch.Settings(minimum: 10_000, maximum: Double(plan.rate ?? 400_000_000_000))
        guard settings.minimum < settings.maximum else {
            throw SearchFailure(reason: "--rate is the highest rate to try, at least 10kbit/s")
        }
        settings.goalLossRatio = loss
        settings.fullSeconds = min(Double(plan.duration) / 1e9, 1)
        settings.shortSeconds = min(settings.fullSeconds, 0.3)
        var search = ThroughputSearch(settings)
        while let trial = search.nextTrial() {
            var trialPlan = plan
            trialPlan.rate = UInt64(trial.rate)
            trialPlan.duration = max(1_000_000, Int64(trial.seconds * 1e9))
            trialPlan.interval = max(1_000_000, trialPlan.duration / 10)
            trialPlan.quiet = 300_000_000
            trialPlan.segments = segments(trialPlan)
            let result: TestResult
            do throws(ControlFault) {
                result = try client.run(trialPlan, isCancelled: { control.state != .running })
            } catch {
                throw SearchFailure(
                    reason: error.description,
                    partial: search.trials == 0 ? nil : text(search, plan)
                )
            }
            if let ended = result.ended {
                let partial = search.trials == 0 ? nil : text(search, plan)
                throw SearchFailure(reason: "a trial ended early: \(ended)", partial: partial)
            }
            let outcome = outcome(of: result, trial)
            search.record(outcome)
            guard !output.quiet else { continue }
            let growth =
                outcome.queueGrowth > 0.001 ? ", queue grew by \(decimal(outcome.queueGrowth * 1e3, 1)) ms" : ""
            Terminal.error(
                "\(decimal(trial.rate / 1e6, 3)) Mbit/s for \(decimal(trial.seconds, 1)) s: "
                    + "loss \(decimal(outcome.lossRatio * 100, 4)) %\(growth)\(outcome.isValid ? "" : ", the sender was too slow")"
            )
        }
        return text(search, plan)
    }

    private func outcome(of result: TestResult, _ trial: ThroughputSearch.Trial) -> ThroughputSearch.Outcome {
        let direction = result.directions[0]
        let total = direction.total(of: result.plan)
        let medians = direction.intervals(of: result.plan).filter { $0.received > 0 }.map(\.delay.p50).filter {
            $0 >= 0
        }
        let offered = Double(total.sent) * Double(result.plan.size * 8) / (Double(result.plan.duration) / 1e9)
        return ThroughputSearch.Outcome(
            sent: total.sent,
            lost: total.lost,
            isValid: offered >= 0.99 * trial.rate,
            offered: offered,
            queueGrowth: Double((medians.last ?? 0) - (medians.first ?? 0)) / 1e9
        )
    }

    private func text(_ search: ThroughputSearch, _ plan: TestPlan) -> String {
        struct Report: Encodable {
            var search = "ndr"
            var goalLossRatio: Double
            var end: String?
            var payloadBitsPerSecond: Double?
            var upperBound: Double?
            var datagramsPerSecond: Double?
            var trials: Int
            var seconds: Double
            var loads: [ThroughputSearch.Load]
        }
        let bits = Double(plan.size * 8)
        if output.json {
            let report = Report(
                goalLossRatio: loss,
                end: search.end?.rawValue,
                payloadBitsPerSecond: search.lowerBound,
                upperBound: search.upperBound,
                datagramsPerSecond: search.lowerBound.map { $0 / bits },
                trials: search.trials,
                seconds: search.seconds,
                loads: search.loads
            )
            return (try? UDPReport.encode(report)) ?? "{}"
        }
        let what = loss == 0 ? "without loss" : "with at most \(decimal(loss * 100, 4)) % lost"
        var lines: [String] = []
        if let low = search.lowerBound {
            let frames = low / bits * Double(plan.size + 42) * 8
            lines.append(
                "\(decimal(low / 1e6, 3)) Mbit/s of UDP payload, \(decimal(low / bits, 0)) datagrams of \(plan.size) B a second, "
                    + "pass \(what)"
            )
            lines.append("(\(decimal(frames / 1e6, 3)) Mbit/s of Ethernet frames over IPv4)")
        } else {
            lines.append("no rate was found that passes \(what)")
        }
        if let high = search.upperBound { lines.append("\(decimal(high / 1e6, 3)) Mbit/s does not") }
        let reason = search.end?.statement ?? "the search was ended early"
        lines.append("\(search.trials) trials, \(decimal(search.seconds, 1)) s of sending: \(reason)")
        return lines.joined(separator: "\n")
    }

    // MARK: Capacity

    private func searchCapacity(
        _ client: TestClient,
        _ plan: TestPlan,
        _ control: RunControl
    ) throws(SearchFailure) -> String {
        let overhead: Int
        do throws(ControlFault) { overhead = try client.packetOverhead() } catch {
            throw SearchFailure(reason: error.description)
        }
        var search = CapacitySearch(algorithm: algorithm, packetByteCount: plan.size + overhead)
        func payload(_ rate: Double) -> UInt64 { UInt64(rate * Double(plan.size) / Double(plan.size + overhead)) }
        var plan = plan
        plan.rate = payload(search.rate)
        plan.statusInterval = 50_000_000
        // The rate begins at half a megabit: no super-packets, unless they are asked for.
        if case .auto = gso { plan.segments = 1 }
        let display = LineDisplay(isQuiet: output.quiet)
        let result: TestResult
        do throws(ControlFault) {
            result = try client.run(
                plan,
                isCancelled: { control.state != .running },
                steer: { progress in
                    search.take(sum(progress.status))
                    let best = search.maximum.map { decimal($0.bitsPerSecond / 1e6, 2) } ?? "-"
                    display.show(
                        "sending \(decimal(search.rate / 1e6, 1)) Mbit/s, most received in a second \(best) Mbit/s"
                    )
                    return payload(search.rate)
                }
            )
        } catch {
            throw SearchFailure(reason: error.description)
        }
        display.end()
        let text = text(search, plan, overhead)
        if let ended = result.ended { throw SearchFailure(reason: "the test ended early: \(ended)", partial: text) }
        return text
    }

    /// All flows as one.
    private func sum(_ statuses: [FlowStatus]) -> FlowStatus {
        var sum = FlowStatus()
        for status in statuses {
            sum.time = max(sum.time, status.time)
            sum.received += status.received
            sum.copies += status.copies
            sum.reordered += status.reordered
            sum.nextExpected += status.nextExpected
            guard status.greatestDelay >= 0 else { continue }
            sum.leastDelay = sum.leastDelay < 0 ? status.leastDelay : min(sum.leastDelay, status.leastDelay)
            sum.greatestDelay = max(sum.greatestDelay, status.greatestDelay)
        }
        return sum
    }

    private func text(_ search: CapacitySearch, _ plan: TestPlan, _ overhead: Int) -> String {
        struct Report: Encodable {
            var search = "capacity"
            var algorithm: String
            var ipBitsPerSecond: Double?
            var maximum: CapacitySearch.SubInterval?
            var subIntervals: [CapacitySearch.SubInterval]
        }
        if output.json {
            let report = Report(
                algorithm: search.algorithm.rawValue,
                ipBitsPerSecond: search.maximum?.bitsPerSecond,
                maximum: search.maximum,
                subIntervals: search.subIntervals
            )
            return (try? UDPReport.encode(report)) ?? "{}"
        }
        guard let best = search.maximum else { return "the test was too short to measure a second" }
        var table = TextTable(header: ["second", "Mbit/s", "lost %", "delay range ms"])
        let begin = search.subIntervals.first?.begin ?? 0
        for second in search.subIntervals {
            table.append([
                decimal(Double(second.begin - begin) / 1e9, 1), decimal(second.bitsPerSecond / 1e6, 2),
                decimal(second.lossRatio * 100, 3), decimal(Double(second.delayRange) / 1e6, 1),
            ])
        }
        let payload = best.bitsPerSecond * Double(plan.size) / Double(plan.size + overhead)
        return table.text + "\nIP-layer capacity (RFC 9097, type \(search.algorithm.rawValue.uppercased())): "
            + "\(decimal(best.bitsPerSecond / 1e6, 2)) Mbit/s, \(decimal(payload / 1e6, 2)) Mbit/s of it UDP payload"
    }
}

extension CapacitySearch.Algorithm: ExpressibleByArgument {}
