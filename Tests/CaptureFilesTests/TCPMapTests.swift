import CaptureFiles
import Foundation
import Testing

@Suite("TCP map")
struct TCPMapTests {
    private static let client: UInt16 = 4_000
    private static let server: UInt16 = 80

    /// A capture of a connection in the making.
    struct Talk {
        var map = TCPMap()
        var time: Int64 = 0
        mutating func segment(
            _ isFromServer: Bool,
            _ sequence: UInt32,
            _ length: Int,
            flags: UInt16 = TCPFlag.ack,
            acknowledgment: UInt32 = 0,
            window: UInt16 = 1_000,
            options: [UInt8] = []
        ) {
            time += 1
            let (from, to) = isFromServer ? (server, client) : (client, server)
            var bytes = Frame.ipv4(
                6,
                Frame.tcp(
                    from,
                    to,
                    sequence: sequence,
                    acknowledgment: acknowledgment,
                    flags: flags,
                    window: window,
                    options: options,
                    [UInt8](repeating: 0, count: length)
                )
            )
            // One direction from each address.
            if isFromServer { bytes.replaceSubrange(12..<20, with: [10, 0, 0, 2, 10, 0, 0, 1]) }
            map.add(decode(bytes, linkType: LinkType.raw), bytes.span.bytes, time: time)
        }
    }

    @Test("times of a stream with a hole, its fill, and bytes that come again, across the wrap of the numbers")
    func times() throws {
        var talk = Talk()
        let isn = UInt32.max - 1_000
        talk.segment(true, isn, 0, flags: TCPFlag.syn | TCPFlag.ack)
        talk.segment(true, isn &+ 1, 1_000)
        talk.segment(true, isn &+ 2_001, 1_000)
        talk.segment(true, isn &+ 1_001, 1_000)
        talk.segment(true, isn &+ 501, 1_000)
        talk.segment(true, isn &+ 3_001, 500, flags: TCPFlag.ack | TCPFlag.fin)
        let stream = talk.map.connections[0].fromA
        #expect(stream.hasSYN && stream.hasFIN)
        #expect((stream.dataByteCount, stream.uniqueByteCount, stream.duplicateByteCount) == (4_500, 3_500, 1_000))
        #expect((stream.retransmittedSegmentCount, stream.holeFillCount) == (1, 1))
        #expect(stream.times(of: 0..<1_000) == .init(first: 2, last: 2, lastTransmission: 5))
        #expect(stream.times(of: 900..<2_100) == .init(first: 2, last: 4, lastTransmission: 5))
        #expect(stream.times(of: 3_400..<3_501) == nil)
        #expect(stream.inOrderTimes(of: [1_000, 2_000, 3_000, 3_500, 3_501]) == [2, 4, 4, 6, nil])
    }

    @Test("keep-alives, zero windows, SACK and DSACK are told apart from data")
    func extras() {
        var talk = Talk()
        talk.segment(false, 100, 0, flags: TCPFlag.syn)
        talk.segment(true, 500, 0, flags: TCPFlag.syn | TCPFlag.ack, acknowledgment: 101)
        talk.segment(false, 101, 10, acknowledgment: 501)
        talk.segment(true, 501, 0, acknowledgment: 111, window: 0)
        // One byte below what was acknowledged, then none.
        talk.segment(false, 110, 1, acknowledgment: 501)
        talk.segment(false, 110, 0, acknowledgment: 501)
        let block = Frame.big(121 as UInt32) + Frame.big(131 as UInt32)
        talk.segment(true, 501, 0, acknowledgment: 111, options: [1, 1, 5, 10] + block)
        let old = Frame.big(101 as UInt32) + Frame.big(111 as UInt32)
        talk.segment(true, 501, 0, acknowledgment: 111, options: [1, 1, 5, 10] + old)
        let stream = talk.map.connections[0].fromA
        #expect((stream.keepAliveCount, stream.retransmittedSegmentCount, stream.uniqueByteCount) == (2, 0, 10))
        #expect((stream.sackBlockCount, stream.dsackCount) == (2, 1))
        #expect(talk.map.connections[0].fromB.zeroWindowCount == 1)
    }

    @Test("bytes that were acknowledged and never seen are the capture's loss")
    func unseen() {
        var talk = Talk()
        talk.segment(true, 1, 0, flags: TCPFlag.syn | TCPFlag.ack)
        talk.segment(true, 2, 100)
        talk.segment(true, 202, 100)
        talk.segment(false, 50, 0, acknowledgment: 302)
        #expect(talk.map.connections[0].fromA.acknowledgedUnseen == 100)
    }

    @Test("without a SYN offset 0 is the first byte seen")
    func noSYN() {
        var talk = Talk()
        talk.segment(true, 70_000, 100)
        talk.segment(true, 70_100, 100)
        let stream = talk.map.connections[0].fromA
        #expect(!stream.hasSYN)
        #expect(stream.times(of: 0..<200)?.last == 2)
    }

    @Test(
        "bytes and retransmissions are tcptrace's on every TCP trace",
        .enabled(
            if: samples != nil && Tool("tcptrace") != nil && Tool("editcap") != nil,
            "needs the sample captures, tcptrace and editcap"
        ),
        arguments: sampleFiles(["zeek-link", "tcpdump-tests"])
    )
    func tcptrace(path: String) throws {
        var reader = try CaptureReader(path: path)
        var map = TCPMap()
        while let packet = reader.next() {
            let file = reader.file
            let bytes = file.span.extracting(packet.bytes)
            let decoded = PacketDecoder.decode(
                bytes,
                originalLength: packet.originalLength,
                linkType: reader.interfaces[packet.interface].linkType
            )
            if decoded.isTCP { map.add(decoded, bytes, time: packet.time ?? 0) }
        }
        // tcptrace reads Ethernet in classic pcap only, and no super-packets.
        // It takes a length of 0 for an empty packet and passes over stacked tags.
        let unread = ["kerberos_tso.pcapng", "bigtcp-ipv6-hbh.pcap", "bigtcp-ipv4.pcap", "vlan-pcp-dei.pcapng"]
        guard !unread.contains(where: { path.hasSuffix($0) }) else { return }
        guard reader.interfaces.allSatisfy({ $0.linkType == LinkType.ethernet }), !map.connections.isEmpty else {
            return
        }
        let copy = "/tmp/tributary-\(UInt64.random(in: 0 ... .max)).pcap"
        defer { remove(copy) }
        guard try #require(Tool("editcap")).run(["-F", "pcap", path, copy]).status == 0 else { return }
        let text = try #require(Tool("tcptrace")).run(["-l", "-n", "-r", copy]).output
        func values(_ key: String) -> [[Int64]] {
            text.split(separator: "\n").filter { $0.contains(key + ":") }.map { line in
                line.split(separator: " ").filter { $0.allSatisfy(\.isNumber) }.compactMap { Int64($0) }
            }
        }
        let (unique, actual, again) = (
            values("unique bytes sent"), values("actual data bytes"), values("rexmt data bytes")
        )
        guard unique.count == map.connections.count else {
            // It does not read what lies behind tags or tunnels, and splits connections by other rules.
            return
        }
        for (index, connection) in map.connections.enumerated() where unique[index].count == 2 {
            let name = "\(path.split(separator: "/").last ?? "") connection \(index)"
            #expect([connection.fromA.uniqueByteCount, connection.fromB.uniqueByteCount] == unique[index], "\(name)")
            #expect([connection.fromA.dataByteCount, connection.fromB.dataByteCount] == actual[index], "\(name)")
            #expect(
                [connection.fromA.duplicateByteCount, connection.fromB.duplicateByteCount] == again[index],
                "\(name)"
            )
        }
    }
}
