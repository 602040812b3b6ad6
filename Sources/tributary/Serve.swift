import ArgumentParser
import Foundation
import Lab
import PipelineConfig
import PipelineCore

struct Serve: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serve the files of a folder over TCP and UDP.",
        discussion: """
            The addresses it listens at are printed on stdout, one line each: 'tcp 127.0.0.1:5000'. Only for trusted \
            networks: nothing is encrypted and nobody is asked who they are.
            """
    )
    @Argument(help: "The folder.", completion: .directory)
    var folder: String
    @Option(help: "Address to listen at over TCP, such as 0.0.0.0:5000 or [::]:5000; port 0 takes a free one.")
    var tcp: [String] = []
    @Option(help: "Address to listen at over UDP.")
    var udp: [String] = []
    @Option(help: "Payload rate of each address, such as 8Mbit/s; without it as fast as can be.")
    var rate: String?
    @Option(help: "Most payload bytes that go at once when there is a rate.")
    var burst: String = "4KiB"
    @OptionGroup var output: OutputOptions

    func run() async throws {
        guard !tcp.isEmpty || !udp.isEmpty else {
            throw ValidationError("say where to listen: --tcp 127.0.0.1:5000 and --udp 127.0.0.1:5000")
        }
        var lines = ["pipelines:"]
        var listeners: [(pipeline: String, scheme: String)] = []
        for (scheme, addresses) in [("tcp", tcp), ("udp", udp)] {
            for address in addresses {
                let name = "server\(listeners.count)"
                listeners.append((name, scheme))
                // A frame that would be longer than a burst would not be paced.
                let frame = scheme == "tcp" && rate != nil ? ", frame: \(SummaryValue.quoted(burst))" : ""
                lines.append("  \(name):")
                lines.append(
                    "    capture: { type: \(scheme)_serve, listen: \(SummaryValue.quoted(address)), "
                        + "directory: \(SummaryValue.quoted(folder))\(frame) }"
                )
                if let rate {
                    lines.append(
                        "    stages: [ { type: pacer, rate: \(SummaryValue.quoted(rate)), burst: \(SummaryValue.quoted(burst)) } ]"
                    )
                }
                lines.append("    sinks: [ { type: reply } ]")
            }
        }
        lines.append("run: { duration: 876000h }")
        let text = lines.joined(separator: "\n")
        let file = try RunFile(composed: text, name: "serve")
        let addresses = AddressBoard()
        let announcer = Task {
            for (pipeline, scheme) in listeners {
                while addresses.address(of: "\(pipeline)/\(scheme)") == nil {
                    try await Task.sleep(for: .milliseconds(5))
                }
                Terminal.result("\(scheme) \(addresses.address(of: "\(pipeline)/\(scheme)") ?? "")")
            }
        }
        defer { announcer.cancel() }
        try await performRun(
            file,
            identity: RunIdentity(command: CommandLine.arguments, configuration: text),
            title: "serve",
            baseFolder: FileManager.default.currentDirectoryPath,
            folder: nil,
            addresses: addresses,
            output: output
        )
    }
}
