/// The headers of one packet, as far as they were captured and understood.
public struct DecodedPacket: Sendable {
    /// How far decoding came.
    public enum Outcome: UInt8, Sendable, CaseIterable {
        /// UDP or TCP, with its header.
        case transport
        /// A later fragment: no ports are in it.
        case fragment
        /// IP, and something other than UDP or TCP in it.
        case otherProtocol
        /// No IP: ARP and the like.
        case otherNetwork
        /// A link type, or something between link and IP (MPLS, PPPoE), that is not decoded.
        case unsupportedLink
        /// Not enough of it was captured.
        case truncated
        /// A header contradicts itself.
        case malformed
        /// More than eight IPv6 extension headers.
        case tooManyHeaders
    }

    public var outcome = Outcome.unsupportedLink
    /// VLAN tags, and the outermost identifier with its tag's EtherType.
    public var vlanCount: UInt8 = 0
    public var vlan: UInt16 = 0
    public var vlanType: UInt16 = 0
    public var etherType: UInt16 = 0
    /// 4, 6, or 0 if there is no IP header.
    public var ipVersion: UInt8 = 0
    public var source = NetworkAddress(ipv4: 0)
    public var destination = NetworkAddress(ipv4: 0)
    /// Total length (IPv4) or payload length (IPv6), as the header has it.
    public var ipLength = 0
    /// Whether that length was 0 or too long for the frame, and the frame's own was taken (TSO, BIG TCP).
    public var isLengthFromFrame = false
    /// 17 UDP, 6 TCP.
    public var protocolNumber: UInt8 = 0
    public var identification: UInt32 = 0
    /// Bytes; fragments share ``identification``.
    public var fragmentOffset = 0
    public var hasMoreFragments = false
    public var sourcePort: UInt16 = 0
    public var destinationPort: UInt16 = 0
    /// As the UDP header has it.
    public var udpLength = 0
    /// Where the payload of UDP or TCP begins, in bytes from the start of the packet.
    public var payloadOffset = 0
    /// Bytes of that payload on the wire, captured or not.
    public var payloadLength = 0
    public var tcpSequence: UInt32 = 0
    public var tcpAcknowledgment: UInt32 = 0
    /// The low twelve bits: reserved, and NS to FIN.
    public var tcpFlags: UInt16 = 0
    public var tcpWindow: UInt16 = 0
    /// Where TCP's options lie.
    public var tcpOptions = 0..<0

    public var isUDP: Bool { outcome == .transport && protocolNumber == 17 }
    public var isTCP: Bool { outcome == .transport && protocolNumber == 6 }
    /// Whether more than one packet carries the datagram.
    public var isFragmented: Bool { hasMoreFragments || fragmentOffset > 0 }

    public init() {}
}

/// Bits of ``DecodedPacket/tcpFlags``.
public enum TCPFlag {
    public static let fin: UInt16 = 1
    public static let syn: UInt16 = 2
    public static let rst: UInt16 = 4
    public static let ack: UInt16 = 16
}

/// Decodes link, network and transport headers. Every offset is checked against what was captured.
public enum PacketDecoder {
    static let mostExtensions = 8
    static let mostTags = 4

    /// - Parameters:
    ///   - bytes: What was captured of the packet.
    ///   - originalLength: What it had on the wire.
    public static func decode(_ bytes: RawSpan, originalLength: Int, linkType: UInt16) -> DecodedPacket {
        var packet = DecodedPacket()
        let frame = max(originalLength, bytes.byteCount)
        switch linkType {
        case LinkType.ethernet:
            guard bytes.byteCount >= 14 else { return packet.ended(.truncated) }
            ethernet(bytes, frame, typeAt: 12, &packet)
        case LinkType.linuxSLL:
            guard bytes.byteCount >= 16 else { return packet.ended(.truncated) }
            ethernet(bytes, frame, typeAt: 14, &packet)
        case LinkType.linuxSLL2:
            guard bytes.byteCount >= 20 else { return packet.ended(.truncated) }
            network(bytes.big(0), bytes, 20, frame, &packet)
        case LinkType.null, LinkType.loop:
            guard bytes.byteCount >= 4 else { return packet.ended(.truncated) }
            let family: UInt32 = bytes.big(0)
            // Written in the byte order of its machine.
            switch linkType == LinkType.null && family > 0xFFFF ? family.byteSwapped : family {
            case 2: ipv4(bytes, 4, frame, &packet)
            case 10, 24, 28, 30: ipv6(bytes, 4, frame, &packet)
            default: packet.outcome = .otherNetwork
            }
        case LinkType.raw, LinkType.rawBSD, LinkType.rawOpenBSD:
            guard bytes.byteCount >= 1 else { return packet.ended(.truncated) }
            switch bytes.byte(0) >> 4 {
            case 4: ipv4(bytes, 0, frame, &packet)
            case 6: ipv6(bytes, 0, frame, &packet)
            default: packet.outcome = .malformed
            }
        case LinkType.ipv4: ipv4(bytes, 0, frame, &packet)
        case LinkType.ipv6: ipv6(bytes, 0, frame, &packet)
        default: packet.outcome = .unsupportedLink
        }
        return packet
    }

    private static func ethernet(_ bytes: RawSpan, _ frame: Int, typeAt: Int, _ packet: inout DecodedPacket) {
        network(bytes.big(typeAt), bytes, typeAt + 2, frame, &packet)
    }

    /// What the EtherType says, through a stack of VLAN tags.
    private static func network(
        _ first: UInt16,
        _ bytes: RawSpan,
        _ begin: Int,
        _ frame: Int,
        _ packet: inout DecodedPacket
    ) {
        var (type, place) = (first, begin)
        while type == 0x8100 || type == 0x88A8 || type == 0x9100 {
            guard Int(packet.vlanCount) < mostTags else { return packet.outcome = .unsupportedLink }
            guard bytes.byteCount - place >= 4 else { return packet.outcome = .truncated }
            if packet.vlanCount == 0 {
                packet.vlan = bytes.big(place, as: UInt16.self) & 0xFFF
                packet.vlanType = type
            }
            packet.vlanCount += 1
            type = bytes.big(place + 2)
            place += 4
        }
        packet.etherType = type
        switch type {
        case 0x0800: ipv4(bytes, place, frame, &packet)
        case 0x86DD: ipv6(bytes, place, frame, &packet)
        case 0x8847, 0x8848, 0x8864: packet.outcome = .unsupportedLink
        default: packet.outcome = .otherNetwork
        }
    }

    private static func ipv4(_ bytes: RawSpan, _ begin: Int, _ frame: Int, _ packet: inout DecodedPacket) {
        guard bytes.byteCount - begin >= 20 else { return packet.outcome = .truncated }
        let first = bytes.byte(begin)
        guard first >> 4 == 4 else { return packet.outcome = .malformed }
        packet.ipVersion = 4
        packet.source = NetworkAddress(ipv4: bytes.big(begin + 12))
        packet.destination = NetworkAddress(ipv4: bytes.big(begin + 16))
        packet.ipLength = Int(bytes.big(begin + 2, as: UInt16.self))
        packet.identification = UInt32(bytes.big(begin + 4, as: UInt16.self))
        packet.protocolNumber = bytes.byte(begin + 9)
        let fragment: UInt16 = bytes.big(begin + 6)
        packet.fragmentOffset = Int(fragment & 0x1FFF) * 8
        packet.hasMoreFragments = fragment & 0x2000 != 0
        let header = Int(first & 0xF) * 4
        var length = packet.ipLength
        if length == 0 || length > frame - begin {
            length = frame - begin
            packet.isLengthFromFrame = true
        }
        guard header >= 20, header <= length else { return packet.outcome = .malformed }
        transport(bytes, begin + header, length - header, &packet)
    }

    private static func ipv6(_ bytes: RawSpan, _ begin: Int, _ frame: Int, _ packet: inout DecodedPacket) {
        guard bytes.byteCount - begin >= 40 else { return packet.outcome = .truncated }
        guard bytes.byte(begin) >> 4 == 6 else { return packet.outcome = .malformed }
        packet.ipVersion = 6
        packet.source = NetworkAddress(ipv6: bytes.big(begin + 8), bytes.big(begin + 16))
        packet.destination = NetworkAddress(ipv6: bytes.big(begin + 24), bytes.big(begin + 32))
        packet.ipLength = Int(bytes.big(begin + 4, as: UInt16.self))
        var length = packet.ipLength
        // A payload of more than 65,535 bytes has 0 here; its length is in a jumbo option, which may itself be wrong.
        if length == 0 && bytes.byte(begin + 6) != 59 || length > frame - begin - 40 {
            length = frame - begin - 40
            packet.isLengthFromFrame = true
        }
        var next = bytes.byte(begin + 6)
        var place = begin + 40
        var left = length
        var count = 0
        while true {
            switch next {
            case 0, 43, 60, 44, 51:
                count += 1
                guard count <= mostExtensions else { return packet.outcome = .tooManyHeaders }
                guard left >= 8 else { return packet.outcome = .malformed }
                guard bytes.byteCount - place >= 8 else { return packet.outcome = .truncated }
                let units = Int(bytes.byte(place + 1))
                var size = 8 * (units + 1)
                if next == 44 {
                    size = 8
                    let fragment: UInt16 = bytes.big(place + 2)
                    packet.fragmentOffset = Int(fragment & 0xFFF8)
                    packet.hasMoreFragments = fragment & 1 != 0
                    packet.identification = bytes.big(place + 4)
                } else if next == 51 {
                    size = 4 * (units + 2)
                }
                guard size <= left else { return packet.outcome = .malformed }
                next = bytes.byte(place)
                place += size
                left -= size
                if packet.fragmentOffset > 0 {
                    packet.protocolNumber = next
                    return transport(bytes, place, left, &packet)
                }
            default:
                packet.protocolNumber = next
                return transport(bytes, place, left, &packet)
            }
        }
    }

    private static func transport(_ bytes: RawSpan, _ begin: Int, _ length: Int, _ packet: inout DecodedPacket) {
        packet.payloadOffset = begin
        packet.payloadLength = length
        guard packet.fragmentOffset == 0 else { return packet.outcome = .fragment }
        let captured = bytes.byteCount - begin
        switch packet.protocolNumber {
        case 17:
            guard length >= 8 else { return packet.outcome = .malformed }
            guard captured >= 8 else { return packet.outcome = .truncated }
            packet.sourcePort = bytes.big(begin)
            packet.destinationPort = bytes.big(begin + 2)
            packet.udpLength = Int(bytes.big(begin + 4, as: UInt16.self))
            packet.payloadOffset = begin + 8
            // A first fragment has less than the datagram; a super-packet of more than 65,535 bytes says 0.
            let whole = packet.udpLength < 8 || packet.udpLength > length ? length : packet.udpLength
            packet.payloadLength = whole - 8
            guard packet.udpLength >= 8 || packet.udpLength == 0 else { return packet.outcome = .malformed }
            packet.outcome = .transport
        case 6:
            guard length >= 20 else { return packet.outcome = .malformed }
            guard captured >= 20 else { return packet.outcome = .truncated }
            packet.sourcePort = bytes.big(begin)
            packet.destinationPort = bytes.big(begin + 2)
            packet.tcpSequence = bytes.big(begin + 4)
            packet.tcpAcknowledgment = bytes.big(begin + 8)
            let flags: UInt16 = bytes.big(begin + 12)
            packet.tcpFlags = flags & 0xFFF
            packet.tcpWindow = bytes.big(begin + 14)
            let header = Int(flags >> 12) * 4
            guard header >= 20, header <= length else { return packet.outcome = .malformed }
            packet.tcpOptions = begin + 20..<begin + max(20, min(header, captured))
            packet.payloadOffset = begin + header
            packet.payloadLength = length - header
            packet.outcome = .transport
        default: packet.outcome = .otherProtocol
        }
    }
}

extension DecodedPacket {
    func ended(_ outcome: Outcome) -> DecodedPacket {
        var packet = self
        packet.outcome = outcome
        return packet
    }
}
