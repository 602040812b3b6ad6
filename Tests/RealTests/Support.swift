import Foundation
import Lab
import PipelineConfig
import PipelineCore
import PipelineRuntime
import StandardStages
import Testing

extension Tag {
    /// Sockets, threads and the machine's clock, on loopback only. Run one after the other: they share two cores.
    @Tag static var real: Self
}

/// A folder of a test's own, gone when the test is.
final class Scratch {
    let path: String
    init() throws {
        path = FileManager.default.temporaryDirectory.path + "/tributary-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Makes a file of random bytes that a seed fixes.
    @discardableResult
    func file(_ name: String, byteCount: Int, seed: UInt64 = 1) throws -> [UInt8] {
        var generator = SeededGenerator(seed: seed)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(byteCount + 8)
        while bytes.count < byteCount {
            var word = generator.next()
            for _ in 0..<8 {
                bytes.append(UInt8(truncatingIfNeeded: word))
                word >>= 8
            }
        }
        bytes.removeLast(bytes.count - byteCount)
        try Data(bytes).write(to: URL(filePath: path + "/" + name))
        return bytes
    }

    func contents(_ name: String) -> [UInt8]? {
        FileManager.default.contents(atPath: path + "/" + name).map { [UInt8]($0) }
    }
}

/// Reads, validates and runs a configuration in this process.
func run(_ text: String, folder: String?, base: String, control: RunControl = RunControl()) async throws -> RunResult {
    var problems: [ConfigProblem] = []
    let file = RunFile(try readYAML(text, file: "test.yaml"), registry: .standard, problems: &problems)
    try #require(problems == [])
    let run = Run(
        file: try #require(file),
        identity: RunIdentity(command: ["test"], configuration: text),
        folder: folder,
        baseFolder: base
    )
    return try await run.perform(control: control)
}

/// What a stage of a pipeline had to say.
func summary(_ result: RunResult, _ pipeline: String, _ stage: String) throws -> SummaryValue {
    let outcome = try #require(result.outcomes.first { $0.name == pipeline })
    return try #require(outcome.summary["stages"]?[stage])
}

/// The lines of `events.jsonl`, by type.
func events(in folder: String) -> [[String: Any]] {
    let data = FileManager.default.contents(atPath: folder + "/events.jsonl") ?? Data()
    return data.split(separator: UInt8(ascii: "\n")).compactMap {
        (try? JSONSerialization.jsonObject(with: $0)) as? [String: Any]
    }
}

/// The program itself, as a user starts it.
final class Program {
    private let process = Process()
    private let output = Pipe()
    private let errors = Pipe()

    /// Where the build put it: beside the tests.
    static var path: String {
        let beside = URL(filePath: ProcessInfo.processInfo.arguments[0]).deletingLastPathComponent()
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        return [beside.appending(path: "tributary"), root.appending(path: ".build/debug/tributary")].map(\.path)
            .first { FileManager.default.isExecutableFile(atPath: $0) } ?? "tributary"
    }

    /// - Parameter namespace: A network namespace to start it in.
    init(_ arguments: [String], in folder: String, namespace: String? = nil) throws {
        process.executableURL = URL(filePath: namespace == nil ? Self.path : Network.ip ?? "ip")
        process.arguments = (namespace.map { ["netns", "exec", $0, Self.path] } ?? []) + arguments
        process.currentDirectoryURL = URL(filePath: folder)
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = errors
        try process.run()
    }

    deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

    var id: pid_t { process.processIdentifier }
    func signal(_ number: CInt) { kill(process.processIdentifier, number) }

    /// The next line on stdout; blocks until it is there.
    func line() -> String { Self.line(of: output) }
    /// The next line on stderr; blocks until it is there.
    func errorLine() -> String { Self.line(of: errors) }

    private static func line(of pipe: Pipe) -> String {
        var bytes: [UInt8] = []
        var byte: UInt8 = 0
        while unsafe read(pipe.fileHandleForReading.fileDescriptor, &byte, 1) == 1, byte != 10 { bytes.append(byte) }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Waits for the end.
    func end() -> (status: CInt, output: String, errors: String) {
        let text = output.fileHandleForReading.readDataToEndOfFile()
        let complaints = errors.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (
            process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus,
            String(decoding: text, as: UTF8.self), String(decoding: complaints, as: UTF8.self)
        )
    }
}

/// Two network namespaces joined by a veth pair, gone when the test is: `10.99.0.1` in ``near``, `10.99.0.2` in ``far``.
final class Network {
    let near: String
    let far: String

    static let ip = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"].first {
        FileManager.default.isExecutableFile(atPath: $0)
    }
    /// Why there can be none here; `nil` if there can.
    static let obstacle: String? = {
        guard geteuid() == 0 else { return "needs root for network namespaces" }
        guard ip != nil else { return "needs ip of iproute2" }
        let name = "tributary-probe-\(getpid())"
        guard (try? command("ip", "netns", "add", name))?.status == 0 else { return "no network namespace can be made" }
        _ = try? command("ip", "netns", "del", name)
        return nil
    }()

    init() throws {
        let id = "\(getpid())-\(UInt16.random(in: 0...9_999))"
        near = "tributary-near-\(id)"
        far = "tributary-far-\(id)"
        try Self.must("ip", "netns", "add", near)
        try Self.must("ip", "netns", "add", far)
        try Self.must(
            "ip",
            "link",
            "add",
            "veth0",
            "netns",
            near,
            "type",
            "veth",
            "peer",
            "name",
            "veth1",
            "netns",
            far
        )
        try Self.must("ip", "-n", near, "addr", "add", "10.99.0.1/24", "dev", "veth0")
        try Self.must("ip", "-n", far, "addr", "add", "10.99.0.2/24", "dev", "veth1")
        for (name, link) in [(near, "veth0"), (far, "veth1"), (near, "lo"), (far, "lo")] {
            try Self.must("ip", "-n", name, "link", "set", link, "up")
        }
    }

    deinit {
        _ = try? Self.command("ip", "netns", "del", near)
        _ = try? Self.command("ip", "netns", "del", far)
    }

    /// Runs a command to its end.
    @discardableResult
    static func command(_ arguments: String...) throws -> (status: CInt, output: String) { try command(arguments) }

    static func command(_ arguments: [String]) throws -> (status: CInt, output: String) {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["PATH=/usr/sbin:/sbin:/usr/bin:/bin"] + arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        process.standardInput = FileHandle.nullDevice
        try process.run()
        let text = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: text, as: UTF8.self))
    }

    static func must(_ arguments: String...) throws { try must(arguments) }

    static func must(_ arguments: [String]) throws {
        let (status, output) = try command(arguments)
        try #require(status == 0, "\(arguments.joined(separator: " ")): \(output)")
    }

    /// Runs a command in a namespace.
    @discardableResult
    func run(in name: String, _ arguments: String...) throws -> String {
        let (status, output) = try Self.command(["ip", "netns", "exec", name] + arguments)
        try #require(status == 0, "\(arguments.joined(separator: " ")): \(output)")
        return output
    }
}
