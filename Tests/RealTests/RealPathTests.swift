import Foundation
import Testing

/// Paths of one's own making, in network namespaces: what the program says of a loss is compared with what caused it.
@Suite(
    "Real paths",
    .tags(.real),
    .serialized,
    .enabled(if: Network.obstacle == nil, "network namespaces cannot be made here")
)
struct RealPathTests {
    private struct Account: Decodable {
        var sent, received, pathLost, socketDropped, corrupted, late, refused: Int64
    }
    private struct Direction: Decodable {
        struct Total: Decodable { var received, byteCount: Int64 }
        var account: Account
        var total: Total
    }
    private struct Output: Decodable {
        var ended: String?
        var directions: [Direction]
    }

    private func server(_ network: Network, _ scratch: Scratch) throws -> (program: Program, address: String) {
        let program = try Program(
            ["udp", "serve", "--listen", "10.99.0.2:0", "--allow-anybody", "--quiet"],
            in: scratch.path,
            namespace: network.far
        )
        return (program, String(program.line().dropFirst(4)))
    }

    private func test(_ network: Network, _ scratch: Scratch, _ address: String, _ options: String) throws -> (
        status: CInt, output: Output?, errors: String
    ) {
        let (status, output, errors) = try Program(
            ["udp", "test", address, "--json", "--quiet"] + options.split(separator: " ").map(String.init),
            in: scratch.path,
            namespace: network.near
        ).end()
        return (status, try? JSONDecoder().decode(Output.self, from: Data(output.utf8)), errors)
    }

    /// Lets 20 Mbit/s of frames through, with a queue of 50 ms.
    private func limit(_ network: Network) throws {
        let bucket = "qdisc add dev veth0 root tbf rate 20mbit burst 16kb latency 50ms"
        try Network.must(["ip", "netns", "exec", network.near, "tc"] + bucket.split(separator: " ").map(String.init))
    }

    private func end(_ program: Program) {
        program.signal(SIGTERM)
        _ = program.end()
    }

    @Test("a rule that drops every 100th datagram: the loss is the rule's counter, exactly")
    func rule() throws {
        let scratch = try Scratch()
        let network = try Network()
        let (program, address) = try server(network, scratch)
        defer { end(program) }
        // Only DATA: the type is the low half of the third byte behind the UDP header.
        try Data(
            """
            table ip tributary {
              counter dropped { }
              chain path {
                type filter hook input priority 0;
                udp dport \(address.split(separator: ":")[1]) @th,84,4 4 numgen inc mod 100 == 0 counter name dropped drop
              }
            }
            """.utf8
        ).write(to: URL(filePath: scratch.path + "/rules"))
        try network.run(in: network.far, "nft", "-f", scratch.path + "/rules")
        var before: Int64 = 0
        for _ in 0..<longRuns(2) {
            let (status, output, errors) = try test(
                network,
                scratch,
                address,
                "--duration 300ms --rate 20kpps --gso off"
            )
            #expect(status == 0, "\(errors)")
            let account = try #require(output?.directions.first?.account)
            let counter = try network.run(in: network.far, "nft", "list", "counter", "ip", "tributary", "dropped")
            let dropped = try #require(number(after: "packets", in: counter))
            #expect(account.pathLost == dropped - before)
            #expect(account.pathLost > 0)
            #expect(account.sent == account.received + account.pathLost + account.socketDropped)
            before = dropped
        }
    }

    @Test("a token bucket: the loss is the bucket's counter, exactly")
    func tokenBucket() throws {
        let scratch = try Scratch()
        let network = try Network()
        let (program, address) = try server(network, scratch)
        defer { end(program) }
        try limit(network)
        var before: Int64 = 0
        for _ in 0..<longRuns(2) {
            let (status, output, errors) = try test(
                network,
                scratch,
                address,
                "--duration 300ms --rate 60Mbit/s --gso off"
            )
            #expect(status == 0, "\(errors)")
            let account = try #require(output?.directions.first?.account)
            let state = try network.run(in: network.near, "tc", "-s", "qdisc", "show", "dev", "veth0")
            let dropped = try #require(number(after: "(dropped", in: state))
            #expect(account.pathLost == dropped - before)
            #expect(account.pathLost > 0)
            before = dropped
        }
    }

    @Test("the searches find what a token bucket lets through, within 3 %", arguments: ["ndr", "capacity"])
    func searches(search: String) throws {
        let scratch = try Scratch()
        let network = try Network()
        let (program, address) = try server(network, scratch)
        defer { end(program) }
        try limit(network)
        // A frame is 42 bytes longer than its payload of 1,200: what saturating UDP gets through is checked against that too.
        let (_, saturated, _) = try test(
            network,
            scratch,
            address,
            "--duration 3s --warm-up 500ms --rate 40Mbit/s --gso off"
        )
        let through = Double(try #require(saturated?.directions.first?.total.byteCount)) * 8 / 3
        #expect(abs(through / (20e6 * 1_200 / 1_242) - 1) < 0.02)
        for _ in 0..<(longRuns(1) == 20 ? 10 : 1) {
            let (status, output, errors) = try Program(
                ["udp", "test", address, "--json", "--quiet", "--search", search],
                in: scratch.path,
                namespace: network.near
            ).end()
            #expect(status == 0, "\(errors)")
            let json = try #require(JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any])
            let found =
                search == "ndr"
                ? try #require(json["payloadBitsPerSecond"] as? Double)
                : try #require(json["ipBitsPerSecond"] as? Double) * 1_200 / 1_228
            #expect(abs(found / through - 1) <= 0.03, "\(search): found \(found), got through \(through)")
        }
    }

    @Test("a path whose MTU is too small is named, and --pmtud makes datagrams fit")
    func smallMTU() throws {
        let scratch = try Scratch()
        let network = try Network()
        let (program, address) = try server(network, scratch)
        defer { end(program) }
        try network.run(in: network.near, "ip", "link", "set", "veth0", "mtu", "1000")
        let refused = try test(network, scratch, address, "--duration 100ms --rate 1Mbit/s")
        #expect(refused.status == 1)
        #expect(refused.errors.contains("its MTU is 1000, which leaves 972 bytes"), "\(refused.errors)")
        let fitted = try test(network, scratch, address, "--duration 100ms --rate 1Mbit/s --pmtud")
        #expect(fitted.status == 0)
        #expect(fitted.errors.contains("datagrams are 972 bytes, not 1200"))
        #expect(fitted.output?.directions.first?.account.pathLost == 0)
    }

    @Test("an interface that is removed in the middle ends the test, with what is known")
    func interfaceRemoved() throws {
        let scratch = try Scratch()
        let network = try Network()
        let (program, address) = try server(network, scratch)
        let client = try Program(
            ["udp", "test", address, "--json", "--duration", "60s", "--rate", "1Mbit/s"],
            in: scratch.path,
            namespace: network.near
        )
        // Its second line of progress: datagrams are on their way.
        _ = client.errorLine()
        _ = client.errorLine()
        let began = ContinuousClock.now
        try network.run(in: network.near, "ip", "link", "del", "veth0")
        let (status, output, errors) = client.end()
        #expect(began.duration(to: .now) < .seconds(20))
        #expect(status == 1)
        #expect(errors.contains("the test ended early: cannot send"), "\(errors)")
        let known = try JSONDecoder().decode(Output.self, from: Data(output.utf8))
        #expect((known.directions.first?.account.sent ?? 0) > 0)
        program.signal(SIGKILL)
        _ = program.end()
    }

    @Test("what this machine's own firewall refuses is neither sent nor lost")
    func ownFirewall() throws {
        let scratch = try Scratch()
        let network = try Network()
        let (program, address) = try server(network, scratch)
        defer { end(program) }
        try Data(
            """
            table ip tributary {
              chain path {
                type filter hook output priority 0;
                udp dport \(address.split(separator: ":")[1]) @th,84,4 4 numgen inc mod 10 == 0 drop
              }
            }
            """.utf8
        ).write(to: URL(filePath: scratch.path + "/rules"))
        try network.run(in: network.near, "nft", "-f", scratch.path + "/rules")
        let (status, output, errors) = try test(network, scratch, address, "--duration 300ms --rate 5kpps --gso off")
        #expect(status == 0, "\(errors)")
        let account = try #require(output?.directions.first?.account)
        #expect(account.refused > 0)
        #expect(account.pathLost == 0)
        #expect(account.sent == account.received)
    }

    private func number(after word: String, in text: String) -> Int64? {
        guard let place = text.range(of: word + " ") else { return nil }
        return Int64(text[place.upperBound...].prefix { $0.isNumber })
    }
}
