import ArgumentParser

/// Rate tests over UDP.
struct UDP: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "udp",
        abstract: "Test a path at high UDP rates, and search for the highest.",
        subcommands: [UDPServe.self, UDPTest.self]
    )
    static let defaultPort = 5500

    /// `HOST`, `HOST:PORT`, `[HOST]:PORT` or a bare IPv6 address, with the port.
    static func address(_ text: String) -> String {
        if text.hasPrefix("[") { return text.contains("]:") ? text : "\(text):\(defaultPort)" }
        switch text.count(where: { $0 == ":" }) {
        case 0: return "\(text):\(defaultPort)"
        case 1: return text
        default: return "[\(text)]:\(defaultPort)"
        }
    }
}
