/// One direction of a TCP connection at one tap: which byte of the stream was on the wire when.
///
/// Offsets count from 0, the first byte after the SYN. A segment that overlaps bytes already seen here, SYN and FIN
/// counted as bytes, is a retransmission; the first to bring bytes below the highest seen is a hole-fill (lost before the
/// tap, or overtaken).
public struct TCPStream: Sendable {
    /// Whether the SYN was seen; without it, offset 0 is the first byte that was.
    public private(set) var hasSYN = false
    public private(set) var hasFIN = false
    public private(set) var segmentCount = 0
    public private(set) var dataSegmentCount = 0
    /// Bytes of all segments, those that came again included.
    public private(set) var dataByteCount: Int64 = 0
    /// Bytes seen at least once.
    public private(set) var uniqueByteCount: Int64 = 0
    public private(set) var duplicateByteCount: Int64 = 0
    public private(set) var retransmittedSegmentCount = 0
    public private(set) var holeFillCount = 0
    public private(set) var keepAliveCount = 0
    public private(set) var zeroWindowCount = 0
    public private(set) var sackBlockCount = 0
    public private(set) var dsackCount = 0
    public private(set) var resetCount = 0
    /// Segments that were not taken in because the map would have grown too large.
    public var evictedCount: Int { timeline.evictedCount }
    /// The largest acknowledgment of the other direction, as an offset; `nil` without one.
    public private(set) var acknowledged: Int64?

    private var origin: UInt32?
    private var lastSequence: UInt32 = 0
    private var lastRelative: Int64 = 0
    private var highest: Int64 = 0
    private var timeline = ByteTimeline()
    private var isSYNCounted = false
    private var finPlace: Int64?

    public init() {}

    /// Takes a segment.
    ///
    /// - Parameter length: Bytes of data.
    public mutating func add(sequence: UInt32, length: Int, flags: UInt16, window: UInt16, time: Int64) {
        segmentCount += 1
        if flags & TCPFlag.rst != 0 {
            resetCount += 1
            return
        }
        let isSYN = flags & TCPFlag.syn != 0
        if window == 0, !isSYN { zeroWindowCount += 1 }
        if origin == nil {
            // Relative number 0 is the SYN, or the byte before the first one seen.
            origin = isSYN ? sequence : sequence &- 1
            lastSequence = origin ?? 0
            hasSYN = isSYN
        }
        let relative = lastRelative + Int64(Int32(bitPattern: sequence &- lastSequence))
        // Data of a segment with a SYN follows it.
        let begin = relative - 1 + (isSYN ? 1 : 0)
        let end = begin + Int64(length)
        if length > 0 || isSYN || flags & TCPFlag.fin != 0 {
            lastSequence = sequence
            lastRelative = relative
        }
        var isRetransmission = false
        if isSYN {
            if isSYNCounted { isRetransmission = true }
            isSYNCounted = true
            hasSYN = hasSYN || relative == 0
        }
        if flags & TCPFlag.fin != 0 {
            if finPlace == end { isRetransmission = true }
            finPlace = end
            hasFIN = true
        }
        if length > 0 {
            // One byte that was acknowledged, sent to hear whether anybody is there (RFC 1122 4.2.3.6).
            if length == 1, begin == highest - 1, let acknowledged, acknowledged >= highest {
                keepAliveCount += 1
                return
            }
            dataSegmentCount += 1
            dataByteCount += Int64(length)
            let new = timeline.insert(begin..<end, at: time)
            if new < Int64(length) { isRetransmission = true }
            uniqueByteCount += new
            duplicateByteCount += Int64(length) - new
            if new == Int64(length), begin < highest { holeFillCount += 1 }
            highest = max(highest, end)
        } else if !isSYN, flags & TCPFlag.fin == 0, relative - 1 == highest - 1, let acknowledged,
            acknowledged >= highest
        {
            keepAliveCount += 1
        }
        if isRetransmission { retransmittedSegmentCount += 1 }
    }

    /// Takes what the other direction acknowledges.
    public mutating func acknowledge(_ number: UInt32) {
        guard origin != nil else { return }
        let offset = lastRelative + Int64(Int32(bitPattern: number &- lastSequence)) - 1
        acknowledged = max(acknowledged ?? .min, offset)
    }

    /// Takes the selective acknowledgments in the options of the other direction.
    mutating func sack(_ blocks: Int, isDuplicate: Bool) {
        sackBlockCount += blocks
        if isDuplicate { dsackCount += 1 }
    }

    /// Bytes that the other end has acknowledged and this tap never saw: the capture lacks them.
    public var acknowledgedUnseen: Int64 {
        guard let acknowledged else { return 0 }
        // The FIN is acknowledged as a byte.
        let end = min(acknowledged, finPlace ?? acknowledged)
        guard end > 0 else { return 0 }
        return end - timeline.count(in: 0..<end)
    }

    /// When bytes `range` of the stream were on the wire; `nil` if some of them never were.
    public func times(of range: Range<Int64>) -> ByteTimeline.Times? { timeline.times(of: range) }

    /// For each end of a piece, in order: when all bytes before it had been seen; `nil` from the first hole on.
    public func inOrderTimes(of ends: [Int64]) -> [Int64?] { timeline.inOrderTimes(of: ends) }
}

/// The TCP connections of a capture.
public struct TCPMap: Sendable {
    public struct Endpoint: Hashable, Sendable {
        public var address: NetworkAddress
        public var port: UInt16
        public init(address: NetworkAddress, port: UInt16) {
            self.address = address
            self.port = port
        }
    }

    public struct Connection: Sendable {
        /// Who was seen first.
        public let a: Endpoint
        public let b: Endpoint
        public internal(set) var fromA = TCPStream()
        public internal(set) var fromB = TCPStream()
        public let firstTime: Int64
    }

    private struct Key: Hashable {
        var a: Endpoint
        var b: Endpoint
    }

    public private(set) var connections: [Connection] = []
    private var indices: [Key: Int] = [:]
    /// Segments of connections beyond the most that are kept.
    public private(set) var evictedCount = 0
    public static let mostConnections = 65_536

    public init() {}

    /// Takes a TCP packet.
    ///
    /// - Returns: Index of its connection and whether it goes from its `a`; `nil` if there are too many.
    @discardableResult
    public mutating func add(_ packet: DecodedPacket, _ bytes: RawSpan, time: Int64) -> (
        connection: Int, isFromA: Bool
    )? {
        let from = Endpoint(address: packet.source, port: packet.sourcePort)
        let to = Endpoint(address: packet.destination, port: packet.destinationPort)
        var place: (connection: Int, isFromA: Bool)?
        if let index = indices[Key(a: from, b: to)] {
            place = (index, true)
        } else if let index = indices[Key(a: to, b: from)] {
            place = (index, false)
        }
        // A new connection between the same ports.
        let opens = packet.tcpFlags & (TCPFlag.syn | TCPFlag.ack) == TCPFlag.syn
        if opens, let (index, isFromA) = place {
            let (one, two) = (connections[index].fromA, connections[index].fromB)
            if one.hasFIN && two.hasFIN || one.resetCount + two.resetCount > 0 {
                indices[isFromA ? Key(a: from, b: to) : Key(a: to, b: from)] = nil
                place = nil
            }
        }
        if place == nil {
            guard connections.count < Self.mostConnections else {
                evictedCount += 1
                return nil
            }
            indices[Key(a: from, b: to)] = connections.count
            place = (connections.count, true)
            connections.append(Connection(a: from, b: to, firstTime: time))
        }
        guard let (index, isFromA) = place else { return nil }
        let hasACK = packet.tcpFlags & TCPFlag.ack != 0
        let (blocks, isDuplicate) = hasACK ? Self.sackBlocks(bytes, packet) : (0, false)
        func take(_ own: inout TCPStream, _ other: inout TCPStream) {
            if hasACK { other.acknowledge(packet.tcpAcknowledgment) }
            if blocks > 0 { other.sack(blocks, isDuplicate: isDuplicate) }
            own.add(
                sequence: packet.tcpSequence,
                length: packet.payloadLength,
                flags: packet.tcpFlags,
                window: packet.tcpWindow,
                time: time
            )
        }
        // Both halves at once: taken out and put back, which copies nothing.
        var (one, two) = (TCPStream(), TCPStream())
        swap(&one, &connections[index].fromA)
        swap(&two, &connections[index].fromB)
        if isFromA { take(&one, &two) } else { take(&two, &one) }
        swap(&one, &connections[index].fromA)
        swap(&two, &connections[index].fromB)
        return place
    }

    /// How many blocks a SACK option has (RFC 2018), and whether the first tells of a duplicate (RFC 2883).
    static func sackBlocks(_ bytes: RawSpan, _ packet: DecodedPacket) -> (count: Int, isDuplicate: Bool) {
        var place = packet.tcpOptions.lowerBound
        let end = min(packet.tcpOptions.upperBound, bytes.byteCount)
        while place < end {
            let kind = bytes.byte(place)
            if kind == 0 { break }
            if kind == 1 {
                place += 1
                continue
            }
            guard place + 1 < end else { break }
            let length = Int(bytes.byte(place + 1))
            guard length >= 2, place + length <= end else { break }
            if kind == 5, length >= 10, (length - 2) % 8 == 0 {
                let left: UInt32 = bytes.big(place + 2)
                let right: UInt32 = bytes.big(place + 6)
                func isBefore(_ a: UInt32, _ b: UInt32) -> Bool { Int32(bitPattern: a &- b) < 0 }
                var isDuplicate = !isBefore(packet.tcpAcknowledgment, right)
                if !isDuplicate, length >= 18 {
                    let (outerLeft, outerRight): (UInt32, UInt32) = (bytes.big(place + 10), bytes.big(place + 14))
                    isDuplicate = !isBefore(left, outerLeft) && !isBefore(outerRight, right)
                }
                return ((length - 2) / 8, isDuplicate)
            }
            place += length
        }
        return (0, false)
    }
}
