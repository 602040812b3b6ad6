import CaptureFiles
import Foundation
import Testing

/// Sample captures, read beside tshark.
@Suite("Sample captures", .enabled(if: samples != nil, "the sample captures are not here"))
struct SampleTests {
    private static let fields = [
        "frame.number", "frame.encap_type", "frame.time_epoch", "frame.len", "frame.cap_len", "vlan.id",
        "ieee8021ad.id", "ip.src", "ip.dst",
        "ip.len", "ip.frag_offset", "ipv6.src", "ipv6.dst", "ipv6.plen", "udp.srcport", "udp.dstport", "udp.length",
        "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.len", "tcp.flags", "frame.protocols",
    ]

    /// Each field of the first header of its kind.
    private static func tshark(_ path: String) throws -> [[String: String]]? {
        guard let tool = Tool("tshark") else { return nil }
        let options = [
            "-r", path, "-n", "-T", "fields", "-E", "separator=|", "-E", "occurrence=f", "-o", "ip.defragment:FALSE",
            "-o",
            "ipv6.defragment:FALSE", "-o", "tcp.desegment_tcp_streams:FALSE", "-o",
            "tcp.relative_sequence_numbers:FALSE",
            "-o", "tcp.analyze_sequence_numbers:FALSE",
        ]
        let (_, output) = try tool.run(options + fields.flatMap { ["-e", $0] })
        let rows = output.split(separator: "\n").map { line in
            let values = line.split(separator: "|", omittingEmptySubsequences: false).map(String.init)
            return Dictionary(uniqueKeysWithValues: zip(fields, values))
        }
        // tshark numbers custom and other blocks too; they are no packets and have no encapsulation.
        return rows.filter { $0["frame.encap_type"] != "" }
    }

    private static func time(_ nanoseconds: Int64) -> String {
        let seconds = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        let digits = String(seconds.remainder)
        return "\(seconds.quotient).\(String(repeating: "0", count: max(0, 9 - digits.count)))\(digits)"
    }

    @Test(
        "packets, times and fields are tshark's",
        .enabled(if: Tool("tshark") != nil, "tshark is not installed"),
        arguments: sampleFiles()
    )
    func fields(path: String) throws {
        let rows = try #require(try Self.tshark(path))
        var reader = try CaptureReader(path: path)
        var packets: [CapturedPacket] = []
        while let packet = reader.next() { packets.append(packet) }
        let name = path.split(separator: "/").suffix(2).joined(separator: "/")
        // A link type that nobody has registered: tshark opens no such file, and its packets are as good as any.
        guard !path.hasSuffix("13_linktype_unknown.pcap") else { return }
        // Where tshark goes on behind what is wrong, or makes sense of what has none, we say what is wrong instead.
        if let problem = reader.problem {
            #expect(packets.count <= rows.count, "\(name): \(problem)")
            #expect(problem.offset <= reader.file.count)
            #expect(
                path.contains("made-malformed") || path.contains("empty") || path.contains("heapoverflow")
                    || path.contains("asan"),
                "\(name): \(problem)"
            )
        } else {
            #expect(packets.count == rows.count, "\(name)")
        }
        for (packet, row) in zip(packets, rows) {
            let number = row["frame.number"] ?? ""
            // Of 2^-63 s it makes 0.
            if let time = packet.time, !packet.hasOddTime, !path.hasSuffix("38_tsresol_0x80_63.pcapng"),
                let other = row["frame.time_epoch"], !other.isEmpty
            {
                #expect(Self.time(time) == other, "\(name) frame \(number)")
            }
            #expect(row["frame.cap_len"] == String(packet.bytes.count), "\(name) frame \(number)")
            #expect(row["frame.len"] == String(min(packet.originalLength, Int(Int32.max))), "\(name) frame \(number)")
            let decoded = PacketDecoder.decode(
                reader.file.span.extracting(packet.bytes),
                originalLength: packet.originalLength,
                linkType: reader.interfaces[packet.interface].linkType
            )
            compare(decoded, row, "\(name) frame \(number)")
        }
    }

    private func compare(_ packet: DecodedPacket, _ row: [String: String], _ place: String) {
        let protocols = row["frame.protocols"] ?? ""
        // Only what is decoded at all: not what lies in tunnels and labels, and not behind what tshark calls malformed.
        guard packet.ipVersion != 0, !protocols.contains("_ws"), !protocols.contains("malformed") else { return }
        func equal(_ key: String, _ value: String) {
            guard let other = row[key], !other.isEmpty else { return }
            #expect(other == value, "\(place): \(key)")
        }
        equal("ip.src", packet.source.description)
        equal("ip.dst", packet.destination.description)
        if packet.ipVersion == 4 {
            // tshark, too, gives the frame's length where the header has 0.
            if packet.ipLength != 0 { equal("ip.len", String(packet.ipLength)) }
            // In units of eight bytes, as the header has it.
            equal("ip.frag_offset", String(packet.fragmentOffset / 8))
        } else {
            equal("ipv6.src", packet.source.description)
            equal("ipv6.dst", packet.destination.description)
            equal("ipv6.plen", String(packet.ipLength))
        }
        if packet.vlanCount > 0 { equal(packet.vlanType == 0x88A8 ? "ieee8021ad.id" : "vlan.id", String(packet.vlan)) }
        let layers = protocols.split(separator: ":")
        if packet.isUDP {
            #expect(layers.contains("udp"), "\(place): \(protocols)")
            equal("udp.srcport", String(packet.sourcePort))
            equal("udp.dstport", String(packet.destinationPort))
            equal("udp.length", String(packet.udpLength))
        }
        if packet.isTCP {
            #expect(layers.contains("tcp"), "\(place): \(protocols)")
            equal("tcp.srcport", String(packet.sourcePort))
            equal("tcp.dstport", String(packet.destinationPort))
            equal("tcp.seq_raw", String(packet.tcpSequence))
            equal("tcp.ack_raw", String(packet.tcpAcknowledgment))
            equal("tcp.len", String(packet.payloadLength))
            let flags = String(packet.tcpFlags, radix: 16)
            equal("tcp.flags", "0x" + String(repeating: "0", count: 4 - flags.count) + flags)
        }
        if packet.outcome == .otherProtocol { #expect(!layers.prefix(4).contains("udp"), "\(place): \(protocols)") }
    }

    @Test(
        "what is malformed ends with a place and a reason, and keeps what comes before",
        arguments: sampleFiles(["made-malformed"])
    )
    func malformed(path: String) throws {
        var reader = try CaptureReader(path: path)
        var count = 0
        while let packet = reader.next() {
            count += 1
            #expect(packet.bytes.upperBound <= reader.file.count)
        }
        #expect(reader.packetCount == count)
        if let problem = reader.problem {
            #expect(!problem.reason.isEmpty)
            #expect((0...reader.file.count).contains(problem.offset))
        }
        // Every way of cutting a small one.
        guard reader.file.count <= 300 else { return }
        let bytes = (0..<reader.file.count).map { reader.file.span.unsafeLoad(fromByteOffset: $0, as: UInt8.self) }
        for length in 0..<bytes.count {
            let (part, packets) = readAll(Array(bytes.prefix(length)))
            #expect(packets.count <= count)
            _ = part
        }
    }

    @Test("all 48 files of the pcapng suite are read to their end")
    func suite() throws {
        let files = sampleFiles(["pcapng-suite"])
        #expect(files.count == 48)
        for path in files {
            var reader = try CaptureReader(path: path)
            while reader.next() != nil {}
            #expect(reader.problem == nil, "\(path): \(String(describing: reader.problem))")
        }
    }
}
