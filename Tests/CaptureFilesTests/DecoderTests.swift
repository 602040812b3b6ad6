import CaptureFiles
import Testing

@Suite("Packet decoding")
struct DecoderTests {
    @Test("UDP under every link type that is decoded")
    func links() {
        let ip = Frame.ipv4(17, Frame.udp(5_000, 6_000, [1, 2, 3]))
        let frames: [(UInt16, [UInt8])] = [
            (LinkType.ethernet, Frame.ethernet(0x0800, ip)), (LinkType.raw, ip), (LinkType.rawBSD, ip),
            (LinkType.rawOpenBSD, ip), (LinkType.ipv4, ip),
            (LinkType.linuxSLL, [UInt8](repeating: 0, count: 14) + [8, 0] + ip),
            (LinkType.linuxSLL2, [8, 0] + [UInt8](repeating: 0, count: 18) + ip), (LinkType.null, [2, 0, 0, 0] + ip),
            (LinkType.null, [0, 0, 0, 2] + ip), (LinkType.loop, [0, 0, 0, 2] + ip),
        ]
        for (type, bytes) in frames {
            let packet = decode(bytes, linkType: type)
            #expect(packet.outcome == .transport, "link type \(type)")
            #expect((packet.sourcePort, packet.destinationPort, packet.payloadLength) == (5_000, 6_000, 3))
            #expect(packet.payloadOffset == bytes.count - 3)
            #expect(packet.source.description == "10.0.0.1")
        }
        #expect(decode(ip, linkType: 147).outcome == .unsupportedLink)
    }

    @Test("VLAN tags, up to four; MPLS and PPPoE are not guessed at")
    func tags() {
        let ip = Frame.ipv4(17, Frame.udp(1, 2, []))
        let double = decode(Frame.ethernet(0x0800, ip, tags: [(0x88A8, 100), (0x8100, 0xE000 | 200)]))
        #expect(double.outcome == .transport)
        #expect((double.vlanCount, double.vlan, double.vlanType) == (2, 100, 0x88A8))
        #expect(
            decode(Frame.ethernet(0x0800, ip, tags: Array(repeating: (0x8100, 1), count: 5))).outcome
                == .unsupportedLink
        )
        #expect(decode(Frame.ethernet(0x8847, ip)).outcome == .unsupportedLink)
        #expect(decode(Frame.ethernet(0x0806, ip)).outcome == .otherNetwork)
    }

    @Test("a length of 0, or beyond the frame, is the frame's own (TSO, BIG TCP)")
    func superPackets() {
        let segment = Frame.tcp(1, 2, sequence: 9, flags: TCPFlag.ack, [UInt8](repeating: 0, count: 100))
        let packet = decode(Frame.ethernet(0x0800, Frame.ipv4(6, segment, length: 0)))
        #expect(packet.isLengthFromFrame)
        #expect(packet.payloadLength == 100)
        let cut = Array(Frame.ethernet(0x0800, Frame.ipv4(6, segment, length: 0)).prefix(60))
        #expect(decode(cut, originalLength: 100_054).payloadLength == 100_000)
        let six = Frame.ipv6(17, Frame.udp(1, 2, [UInt8](repeating: 0, count: 50), length: 0), length: 0)
        #expect(decode(Frame.ethernet(0x86DD, six)).payloadLength == 50)
        // Padding behind a short packet is none of it.
        let short = decode(
            Frame.ethernet(0x0800, Frame.ipv4(17, Frame.udp(1, 2, [1]))) + [UInt8](repeating: 0, count: 20)
        )
        #expect(short.payloadLength == 1)
        #expect(!short.isLengthFromFrame)
    }

    @Test("IPv6 extension headers are passed, eight at most")
    func extensions() {
        func chain(_ count: Int) -> [UInt8] {
            (0..<count).flatMap { index in [index == count - 1 ? 17 : 60, 0] + [UInt8](repeating: 0, count: 6) }
                + Frame.udp(7, 8, [1])
        }
        #expect(decode(Frame.ethernet(0x86DD, Frame.ipv6(60, chain(8)))).destinationPort == 8)
        #expect(decode(Frame.ethernet(0x86DD, Frame.ipv6(60, chain(9)))).outcome == .tooManyHeaders)
        let fragment = [17, 0] + Frame.big(0 as UInt16 | 1) + Frame.big(77 as UInt32) + Frame.udp(7, 8, [1, 2])
        let first = decode(Frame.ethernet(0x86DD, Frame.ipv6(44, fragment)))
        #expect(first.hasMoreFragments)
        #expect((first.identification, first.destinationPort) == (77, 8))
        let later = [17, 0] + Frame.big(1_448 as UInt16) + Frame.big(77 as UInt32) + [1, 2, 3]
        #expect(decode(Frame.ethernet(0x86DD, Frame.ipv6(44, later))).outcome == .fragment)
    }

    @Test(
        "any cut and any flipped bit of a packet is decoded or refused, never trusted",
        arguments: [
            Frame.ethernet(0x0800, Frame.ipv4(17, Frame.udp(1, 2, [1, 2, 3, 4]))),
            Frame.ethernet(
                0x86DD,
                Frame.ipv6(
                    0,
                    [6, 0, 0xC2, 4, 0, 0, 0, 9]
                        + Frame.tcp(1, 2, sequence: 1, flags: 2, options: [5, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0], [1])
                )
            ),
        ]
    )
    func hostile(frame: [UInt8]) {
        for length in 0..<frame.count {
            let packet = decode(Array(frame.prefix(length)), originalLength: frame.count)
            #expect(packet.outcome != .transport || packet.payloadOffset <= frame.count)
        }
        for bit in 0..<frame.count * 8 {
            var broken = frame
            broken[bit / 8] ^= 1 << (bit % 8)
            for type in [0, 1, 12, 101, 108, 113, 228, 229, 276] as [UInt16] {
                let packet = decode(broken, linkType: type)
                #expect(packet.payloadLength >= 0)
                var map = TCPMap()
                if packet.isTCP { map.add(packet, broken.span.bytes, time: 0) }
            }
        }
    }

    @Test("addresses are written as RFC 5952 has it")
    func addresses() {
        #expect(NetworkAddress(ipv4: 0xC000_0201).description == "192.0.2.1")
        // RFC 5952, 4.2.2 and 4.2.3, and 2.2 of RFC 4291.
        #expect(
            NetworkAddress(ipv6: 0x2001_0DB8_0000_0001, 0x0001_0001_0001_0001).description == "2001:db8:0:1:1:1:1:1"
        )
        #expect(NetworkAddress(ipv6: 0x2001_0DB8_0000_0000, 0x0001_0000_0000_0001).description == "2001:db8::1:0:0:1")
        #expect(NetworkAddress(ipv6: 0, 1).description == "::1")
        #expect(NetworkAddress(ipv6: 0, 0).description == "::")
        #expect(NetworkAddress(ipv6: 0x2001_0000_0000_0001, 0x0000_0000_0000_0001).description == "2001:0:0:1::1")
        #expect(NetworkAddress(ipv6: 0xFE80_0000_0000_0000, 0).description == "fe80::")
    }
}
