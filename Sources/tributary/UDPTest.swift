public import ArgumentParser
import Foundation
import Lab
import Measures
public import NetworkStages
import PipelineCore
import PipelineRuntime
public import RateTest

struct UDPTest: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "test",
        abstract: "Test a path with a server that runs 'tributary udp serve'.",
        discussion: """
            What was sent and what came are counted for the same datagrams, so that sent = received + lost, exactly, in every \
            interval and in all; the end is agreed over TCP, so that no tail counts as lost. Exit status: 0 done, 1 the test \
            did not begin or ended early (what is known is printed), 130 interrupted.
            """
    )
    @Argument(help: "HOST or HOST:PORT of the server.")
    var host: String
    @Option(help: "Who sends: up (this machine), down (the server) or both.")
    var direction = TestPlan.Direction.up
    @Option(help: "Flows of each direction, each on a lane of its own.")
    var flows = 1
    @Option(help: "UDP payload of one direction, such as 8Mbit/s, or 100kpps; without it as fast as can be.")
    var rate: Rate?
    @Option(help: "UDP payload of a datagram, its header of 32 bytes included.")
    var size = Measured(ByteCount(1_200))
    @Option(help: "How long to measure.")
    var duration = Measured(Duration.seconds(10))
    @Option(help: "How long to send before measuring begins.")
    var warmUp = Measured(Duration.zero)
    @Option(help: "Length of the intervals of the report.")
    var interval = Measured(Duration.seconds(1))
    @Option(help: "Datagrams of a super-packet that the kernel cuts: auto, off or a number.")
    var gso = Segments.auto
    @Flag(inversion: .prefixedNo, help: "Let the receiver's kernel join datagrams.")
    var gro = true
    @Option(help: "How the receiver waits: nap, block or spin.")
    var wait = NetworkStages.UDPReceive.Waiting.nap
    @Option(help: "Socket buffer of the receiver.")
    var receiveBuffer = Measured(ByteCount.mebibytes(8))
    @Flag(help: "End delays in the application, not at the kernel's receive stamp.")
    var applicationStamps = false
    @Flag(help: "Make datagrams as small as the path's MTU asks for.")
    var pmtud = false
    @Option(help: "Search for the highest rate: ndr (loss at or below --loss, RFC 2544) or capacity (RFC 9097).")
    var search: Search?
    @Option(help: "Ratio of loss that the search for a rate allows.")
    var loss = 0.0
    @Option(help: "How the search for capacity adjusts its rate: type b or c of RFC 9097.")
    var algorithm = CapacitySearch.Algorithm.c
    @Option(help: "File whose first line is the server's secret.", completion: .file())
    var secretFile: String?
    @Option(help: "Write the intervals to a CSV file.", completion: .file(extensions: ["csv"]))
    var csv: String?
    @Option(help: "Processor to run this end's flows on.")
    var pin: Int?
    @Option(help: ArgumentHelp("Where datagrams go, if not to the server.", visibility: .hidden))
    var via: String?
    @OptionGroup var output: OutputOptions

    enum Search: String, ExpressibleByArgument, CaseIterable { case ndr, capacity }

    func run() async throws {
        var client = TestClient(server: UDP.address(host))
        client.secret = try secretFile.map { try readSecret($0) }
        client.discoversMTU = pmtud
        client.datagramsVia = via
        client.pin = pin
        let plan = try makePlan()
        let control = RunControl()
        let signals = Signals(control)
        defer { withExtendedLifetime(signals) {} }
        if let search { return try await perform(search, client, plan, control) }
        let display = LineDisplay(isQuiet: output.quiet)
        let made = client
        let outcome = await blocking { () -> Result<TestResult, ControlFault> in
            do throws(ControlFault) {
                return .success(
                    try made.run(
                        plan,
                        isCancelled: { control.state != .running },
                        look: { display.show(UDPReport.progress($0, plan)) }
                    )
                )
            } catch {
                return .failure(error)
            }
        }
        display.end()
        let result: TestResult
        do {
            result = try outcome.get()
        } catch {
            Terminal.error("error: \(error)")
            throw ExitCode(control.state == .running ? 1 : 130)
        }
        if let csv { try UDPReport.writeCSV(result, to: csv) }
        if output.json {
            Terminal.result(try UDPReport.json(result))
        } else {
            Terminal.result(UDPReport.text(result))
        }
        for warning in result.warnings { Terminal.error("warning: \(warning)") }
        if let ended = result.ended {
            if control.state != .running { throw ExitCode(130) }
            Terminal.error("error: the test ended early: \(ended)")
            throw ExitCode(1)
        }
    }

    /// The plan that the options mean.
    func makePlan() throws -> TestPlan {
        var plan = TestPlan()
        plan.direction = direction
        plan.flows = flows
        plan.size = Int(clamping: size.value.bytes)
        plan.duration = nanoseconds(duration.value)
        plan.warmUp = nanoseconds(warmUp.value)
        plan.interval = nanoseconds(interval.value)
        plan.gro = gro
        plan.wait = wait.rawValue
        plan.kernelStamps = !applicationStamps
        plan.receiveBuffer = Int(clamping: receiveBuffer.value.bytes)
        plan.rate = rate?.bitsPerSecond(size: plan.size)
        plan.segments = segments(plan)
        guard plan.problems.isEmpty else { throw ValidationError(plan.problems.joined(separator: "; ")) }
        return plan
    }

    func segments(_ plan: TestPlan) -> Int {
        let limit = max(1, 65_507 / max(1, plan.size))
        switch gso {
        case .off: return 1
        case .number(let number): return number
        case .auto:
            let found = UDPCapabilities.probe()
            if let fault = found.fault, !output.quiet {
                Terminal.error("warning: this kernel does not cut or join datagrams as it should: \(fault)")
            }
            let most = min(found.maxSegments, limit)
            guard let rate = plan.rate else { return most }
            // Super-packets no closer than 20 µs: below 150,000 datagrams a second each one goes on its own.
            let perSecond = Double(rate) / Double(plan.size * 8 * plan.flows)
            return perSecond < 150_000 ? 1 : min(most, max(1, Int(perSecond / 50_000)))
        }
    }

    private func nanoseconds(_ duration: Duration) -> Int64 { Timestamp.zero.advanced(by: duration).nanoseconds }
}

/// A value with its unit on the command line.
struct Measured<Value: OptionValue>: ExpressibleByArgument {
    var value: Value
    init(_ value: Value) { self.value = value }
    init?(argument: String) {
        // A bare number is of the smallest unit.
        let text = Value.self == ByteCount.self && argument.allSatisfy(\.isNumber) ? argument + "B" : argument
        guard case .success(let value) = Value.read(text) else { return nil }
        self.value = value
    }
    var defaultValueDescription: String { value.written }
}

/// Bits or datagrams a second.
enum Rate: ExpressibleByArgument {
    case bits(UInt64)
    case datagrams(Double)

    init?(argument: String) {
        for (suffix, scale) in [("Mpps", 1e6), ("kpps", 1e3), ("pps", 1.0)] where argument.hasSuffix(suffix) {
            guard let value = Double(argument.dropLast(suffix.count)), value > 0, value < 1e12 else { return nil }
            self = .datagrams(value * scale)
            return
        }
        guard case .success(let rate) = BitRate.read(argument), rate.bitsPerSecond > 0 else { return nil }
        self = .bits(rate.bitsPerSecond)
    }

    func bitsPerSecond(size: Int) -> UInt64 {
        switch self {
        case .bits(let bits): bits
        case .datagrams(let count): max(1, UInt64((count * Double(size) * 8).rounded()))
        }
    }
}

/// How many datagrams a super-packet has.
enum Segments: ExpressibleByArgument {
    case auto, off
    case number(Int)
    init?(argument: String) {
        switch argument {
        case "auto": self = .auto
        case "off": self = .off
        default:
            guard let number = Int(argument), (1...128).contains(number) else { return nil }
            self = .number(number)
        }
    }
    var defaultValueDescription: String { "auto" }
}

extension TestPlan.Direction: ExpressibleByArgument {}
extension NetworkStages.UDPReceive.Waiting: ExpressibleByArgument {}

/// One line on stderr that is rewritten on a terminal, or repeated once a second elsewhere.
final class LineDisplay: Sendable {
    private let isQuiet: Bool
    private let isInteractive = Terminal.isInteractive
    private let last = Published(ContinuousClock.now - .seconds(2))
    init(isQuiet: Bool) { self.isQuiet = isQuiet }

    func show(_ line: String) {
        guard !isQuiet else { return }
        if isInteractive {
            FileHandle.standardError.write(Data("\r\u{1B}[K\(line)".utf8))
        } else if last.value.duration(to: .now) >= .seconds(1) {
            last.publish(.now)
            Terminal.error(line)
        }
    }

    func end() { if !isQuiet, isInteractive { FileHandle.standardError.write(Data("\r\u{1B}[K".utf8)) } }
}
