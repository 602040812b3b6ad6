import ArgumentParser
import Foundation
import NetworkStages
import PipelineCore
import PipelineRuntime
import RateTest

struct UDPServe: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Be the other end of rate tests.",
        discussion: """
            The address it listens at, TCP for control and UDP for flows, is printed on stdout: 'udp 127.0.0.1:5500'. It \
            tests with anybody who reaches it, and so listens beyond loopback only with a secret or with --allow-anybody. It \
            never sends at an address that has not returned a cookie. Ctrl-C ends it.
            """
    )
    @Option(help: "Address to listen at; port 0 takes a free one.")
    var listen = "127.0.0.1"
    @Option(help: "File whose first line clients must know.", completion: .file())
    var secretFile: String?
    @Flag(help: "Listen beyond loopback without a secret: anybody may then have this machine send at full rate.")
    var allowAnybody = false
    @Option(help: "Tests at once.")
    var maxTests = 16
    @Option(help: "Processor to run all flows on.")
    var pin: Int?
    @Flag(name: [.short, .long], help: "No progress on stderr.")
    var quiet = false

    func run() async throws {
        guard (1...1_000).contains(maxTests) else { throw ValidationError("--max-tests must be 1 to 1000") }
        var options = TestServer.Options()
        options.listen = UDP.address(listen)
        options.secret = try secretFile.map { try readSecret($0) }
        options.allowsAnybody = allowAnybody
        options.limit = maxTests
        options.pin = pin
        let isQuiet = quiet
        let server: TestServer
        do {
            server = try TestServer(options: options) { line in if !isQuiet { Terminal.error(line) } }
        } catch {
            Terminal.error("error: \(error.message)")
            throw ExitCode(1)
        }
        Terminal.result("udp \(server.address)")
        let control = RunControl()
        let signals = Signals(control)
        defer { withExtendedLifetime(signals) {} }
        let watcher = Task {
            while control.state == .running { try await Task.sleep(for: .milliseconds(50)) }
            server.stop()
        }
        await blocking { server.run() }
        watcher.cancel()
    }
}

/// The first line of a file.
func readSecret(_ path: String) throws -> String {
    guard let data = FileManager.default.contents(atPath: path),
        let line = String(decoding: data, as: UTF8.self).split(whereSeparator: \.isNewline).first
    else { throw ValidationError("\(path): expected a file whose first line is the secret") }
    return String(line)
}

/// Runs what blocks on a thread of its own.
func blocking<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async -> Value {
    await withCheckedContinuation { continuation in
        Thread.detachNewThread { continuation.resume(returning: body()) }
    }
}
