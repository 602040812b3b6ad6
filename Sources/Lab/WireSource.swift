import CaptureFiles
import Delivery
import Foundation

/// One capture file of a run, and what of it is ours.
struct WireSource {
    /// Datagrams of a movie: which bytes of the object passed when, by the server that sent them.
    struct Server {
        var endpoint: TCPMap.Endpoint
        var isTCP: Bool
        var object = ByteTimeline()
        /// Payload bytes of DATA, each transmission.
        var byteCount: Int64 = 0
        var datagramCount: Int64 = 0
    }

    let path: String
    private(set) var role: String
    private(set) var taps: [TapReport] = []
    private(set) var servers: [Server] = []
    private(set) var tcp = TCPMap()
    private(set) var problem: CaptureProblem?
    /// Packets that the interface's queue dropped while it was captured; `nil` if nobody counted.
    private(set) var queueDropped: Int64?
    /// How often its clock was set.
    private(set) var clockSteps = 0
    private(set) var firstData: Int64?
    private(set) var lastData: Int64?
    private var places: [TCPMap.Endpoint: Int] = [:]
    private var streams: [Int: [Bool: FrameScanner]] = [:]
    private var fragments: [FragmentKey: Pending] = [:]
    /// TCP streams whose frames could not be followed to their end.
    private(set) var lostStreamCount = 0

    /// A datagram of which not all fragments have passed.
    private struct Pending {
        var flow: UInt32
        var sequence: UInt64
        var size: Int
        var left: Int
        var time: Int64
    }
    private var recent: [PacketKey: Int64] = [:]

    private struct FragmentKey: Hashable {
        var source: NetworkAddress
        var destination: NetworkAddress
        var id: UInt32
    }
    /// What tells one packet from another at a tap.
    private struct PacketKey: Hashable {
        var flow: UInt32
        var sequence: UInt64
        var identification: UInt32
    }
    private static let mostFragments = 65_536
    private static let fragmentPatience: Int64 = 30_000_000_000

    /// Reads a capture, and adds what it saw of test datagrams to `join`.
    ///
    /// - Parameter role: `tx`, `rx` or `both`; `nil`: what the file says.
    init(_ path: String, role: String?, into join: inout DatagramJoin) throws(CaptureFileError) {
        self.path = path
        self.role = role ?? "both"
        var reader = try CaptureReader(path: path)
        var delivered = 0
        var (undecoded, foreign, inversions): (UInt64, UInt64, UInt64) = (0, 0, 0)
        var (firstProbe, lastProbe, firstTime, lastTime): (Int64?, Int64?, Int64?, Int64?)
        var side = role
        while let packet = reader.next() {
            let interface = reader.interfaces[packet.interface]
            if side == nil { side = ["tx", "rx", "both"].first { $0 == interface.purpose } ?? "both" }
            delivered += 1
            guard let time = packet.time else { continue }
            if let last = lastTime, time < last { inversions += 1 }
            if firstTime == nil { firstTime = time }
            lastTime = time
            let bytes = reader.file.span.extracting(packet.bytes)
            let decoded = PacketDecoder.decode(
                bytes,
                originalLength: packet.originalLength,
                linkType: interface.linkType
            )
            switch decoded.outcome {
            case .transport where decoded.protocolNumber == 17:
                switch takeDatagram(decoded, bytes, time, side ?? "both", &join) {
                case .data:
                    if firstData == nil { firstData = time }
                    lastData = time
                case .probe:
                    if firstProbe == nil { firstProbe = time }
                    lastProbe = time
                case .foreign: foreign += 1
                }
            case .transport:
                takeSegment(decoded, bytes, time)
                if decoded.payloadLength > 0 {
                    if firstData == nil { firstData = time }
                    lastData = time
                }
            case .fragment: takeFragment(decoded, time, side ?? "both", &join)
            case .otherProtocol, .otherNetwork: foreign += 1
            case .unsupportedLink, .truncated, .malformed, .tooManyHeaders: undecoded += 1
            }
        }
        problem = reader.problem
        self.role = side ?? role ?? reader.interfaces.first?.purpose ?? "both"
        var report = TapReport(name: reader.interfaces.first?.name ?? path, side: self.role == "tx" ? .out : .in)
        report.delivered = UInt64(delivered)
        let statistics = reader.interfaces.reduce(into: (received: UInt64?.none, dropped: UInt64?.none)) { sum, one in
            func added(_ a: UInt64?, _ b: UInt64) -> UInt64 {
                let (value, overflows) = (a ?? 0).addingReportingOverflow(b)
                return overflows ? .max : value
            }
            if let received = one.statistics.received { sum.received = added(sum.received, received) }
            if let dropped = one.statistics.systemDropped { sum.dropped = added(sum.dropped, dropped) }
        }
        report.received = statistics.received
        report.dropped = statistics.dropped
        report.undecoded = undecoded
        report.foreign = foreign
        report.inversions = inversions
        report.doubled = UInt64(doubled)
        // A probe of the tap's own before and after all data shows that it lived; without probes, the data's own ends must.
        report.isProbed = firstProbe != nil
        report.isCut = problem != nil
        if let resolution = reader.interfaces.first?.resolution, !resolution.isBinary, resolution.exponent < 9 {
            report.grain = resolution.exponent == 6 ? 1_000 : 1_000_000
        }
        if let firstProbe, let lastProbe {
            report.sawBeginning = firstProbe <= firstData ?? .max
            // The last probe is sent when the run has ended; what others still send may pass behind it.
            let ends = firstData.map { lastProbe > $0 } ?? true
            report.sawEnd = ends && (lastData.map { $0 &- lastProbe < 1_000_000_000 } ?? true)
        }
        taps = [report]
        if self.role == "both" {
            var out = report
            out.side = .out
            taps.append(out)
        }
        readComments(reader.interfaces)
        finishStreams()
    }

    private(set) var doubled = 0

    private mutating func readComments(_ interfaces: [CaptureInterface]) {
        var difference: Int64?
        for comment in interfaces.flatMap(\.statisticsComments) {
            let words = comment.text.split(separator: " ")
            for (key, value) in zip(words, words.dropFirst()) {
                guard let number = Int64(value) else { continue }
                if key == "queue-dropped", number >= 0 { queueDropped = min(number, 1 << 60) }
                if key == "monotonic" {
                    let now = comment.time &- number
                    if let difference, (now &- difference).magnitude > 1_000_000 { clockSteps += 1 }
                    difference = now
                }
            }
        }
    }

    private enum Kind { case data, probe, foreign }

    private mutating func takeDatagram(
        _ packet: DecodedPacket,
        _ bytes: RawSpan,
        _ time: Int64,
        _ side: String,
        _ join: inout DatagramJoin
    ) -> Kind {
        guard packet.payloadOffset <= bytes.byteCount,
            let header = try? WireHeader.read(bytes, at: packet.payloadOffset)
        else {
            return .foreign
        }
        guard header.type == .data else {
            return header.type == .ping && packet.payloadLength == WireHeader.byteCount ? .probe : .data
        }
        // A first fragment's datagram is longer than the fragment.
        let length = packet.hasMoreFragments ? max(0, packet.udpLength - 8) : packet.payloadLength
        // UDP has no longer one, and what a header says is no order to make room.
        guard length <= 65_535 else { return .foreign }
        let stride = WireHeader.byteCount + Int(header.payloadByteCount)
        if packet.hasMoreFragments {
            if fragments.count >= Self.mostFragments {
                fragments = fragments.filter { time &- $0.value.time < Self.fragmentPatience }
                if fragments.count >= Self.mostFragments { fragments.removeAll() }
            }
            let key = FragmentKey(source: packet.source, destination: packet.destination, id: packet.identification)
            fragments[key] = Pending(
                flow: header.flow,
                sequence: header.sequence,
                size: length,
                left: length - packet.payloadLength,
                time: time
            )
            // It has come in when it is whole: the kernel stamps it then, and drops it otherwise.
            if side != "rx" {
                join.addWire(.out, flow: header.flow, sequence: header.sequence, length: length, time: time)
            }
            return .data
        }
        let isSuper = length > stride
        // One host's loopback, or a mirrored port, may show a packet twice: the same identification within a millisecond.
        if !isSuper, packet.ipVersion == 4, packet.identification != 0 {
            let key = PacketKey(flow: header.flow, sequence: header.sequence, identification: packet.identification)
            if let before = recent[key], time &- before < 1_000_000 {
                doubled += 1
                return .data
            }
            if recent.count > 8_192 { recent.removeAll(keepingCapacity: true) }
            recent[key] = time
        }
        var offset = 0
        var index: UInt64 = 0
        while offset < length {
            let size = min(stride, length - offset)
            // Where its own header was captured it tells; elsewhere the numbers follow each other.
            let own = try? WireHeader.read(bytes, at: packet.payloadOffset + offset)
            let sequence = own?.sequence ?? header.sequence &+ index
            let flow = own?.flow ?? header.flow
            let isInferred = own == nil && index > 0
            if own.map({ $0.type == .data }) ?? true {
                if side != "rx" {
                    join.addWire(
                        .out,
                        flow: flow,
                        sequence: sequence,
                        length: size,
                        time: time,
                        isSuperPacket: isSuper,
                        isInferred: isInferred
                    )
                }
                if side != "tx" {
                    join.addWire(
                        .in,
                        flow: flow,
                        sequence: sequence,
                        length: size,
                        time: time,
                        isSuperPacket: isSuper,
                        isInferred: isInferred
                    )
                }
                if let own { note(own, packet, size - WireHeader.byteCount, time) }
            }
            index += 1
            offset += size
        }
        return .data
    }

    /// A piece of an object that a server sent over UDP.
    private mutating func note(_ header: WireHeader, _ packet: DecodedPacket, _ byteCount: Int, _ time: Int64) {
        let place = server(TCPMap.Endpoint(address: packet.source, port: packet.sourcePort), isTCP: false)
        servers[place].datagramCount += 1
        servers[place].byteCount += Int64(byteCount)
        let begin = Int64(clamping: header.objectOffset)
        servers[place].object.insert(begin..<begin + Int64(max(0, byteCount)), at: time)
    }

    private mutating func server(_ endpoint: TCPMap.Endpoint, isTCP: Bool) -> Int {
        if let place = places[endpoint] { return place }
        places[endpoint] = servers.count
        servers.append(Server(endpoint: endpoint, isTCP: isTCP))
        return servers.count - 1
    }

    private mutating func takeFragment(
        _ packet: DecodedPacket,
        _ time: Int64,
        _ side: String,
        _ join: inout DatagramJoin
    ) {
        let key = FragmentKey(source: packet.source, destination: packet.destination, id: packet.identification)
        guard var pending = fragments[key] else { return }
        pending.left -= packet.payloadLength
        guard pending.left <= 0 else { return fragments[key] = pending }
        fragments[key] = nil
        guard side != "tx" else { return }
        join.addWire(.in, flow: pending.flow, sequence: pending.sequence, length: pending.size, time: time)
    }

    // MARK: TCP

    private mutating func takeSegment(_ packet: DecodedPacket, _ bytes: RawSpan, _ time: Int64) {
        guard let (index, isFromA) = tcp.add(packet, bytes, time: time) else { return }
        let begin = min(packet.payloadOffset, bytes.byteCount)
        let payload = bytes.extracting(begin..<min(begin + packet.payloadLength, bytes.byteCount))
        var scanner = streams[index]?[isFromA] ?? FrameScanner()
        streams[index]?[isFromA] = nil
        if payload.byteCount < packet.payloadLength { scanner.isLost = true }
        scanner.add(payload, sequence: packet.tcpSequence, isSYN: packet.tcpFlags & TCPFlag.syn != 0)
        streams[index, default: [:]][isFromA] = scanner
    }

    /// When all segments are known, so are the times of the frames in them.
    private mutating func finishStreams() {
        for (index, both) in streams {
            let connection = tcp.connections[index]
            for (isFromA, scanner) in both where !scanner.frames.isEmpty {
                // A stream that was too much to be kept is as lost as one with a hole.
                let kept = isFromA ? connection.fromA : connection.fromB
                if scanner.isLost || !scanner.hasAll || kept.evictedCount > 0 { lostStreamCount += 1 }
                let stream = isFromA ? connection.fromA : connection.fromB
                let place = server(isFromA ? connection.a : connection.b, isTCP: true)
                for frame in scanner.frames {
                    servers[place].byteCount += Int64(frame.byteCount)
                    servers[place].datagramCount += 1
                    // The bytes of a frame come in several segments, each with its time.
                    var begin = frame.streamOffset
                    let end = begin + Int64(frame.byteCount)
                    while begin < end {
                        let next = min(end, begin + 1_024)
                        guard let times = stream.times(of: begin..<next) else { break }
                        let object = Int64(clamping: frame.objectOffset) + (begin - frame.streamOffset)
                        servers[place].object.insert(object..<object + (next - begin), at: times.last)
                        begin = next
                    }
                }
            }
        }
        streams = [:]
    }
}

/// Finds our frames in one direction of a TCP connection whose payload was captured.
struct FrameScanner {
    struct Frame {
        /// Where its payload begins in the stream.
        var streamOffset: Int64
        var objectOffset: UInt64
        var byteCount: Int
    }
    private(set) var frames: [Frame] = []
    private var origin: UInt32?
    private var next: Int64 = 0
    private var lastSequence: UInt32 = 0
    private var lastOffset: Int64 = 0
    /// Bytes of a header that is not whole.
    private var partial: [UInt8] = []
    /// Bytes of payload that are passed over before the next header.
    private var skip: Int64 = 0
    /// Whether the stream could not be followed: a hole in it, or less captured than was sent.
    var isLost = false
    /// Segments that came before those in front of them.
    private var early: [Int64: [UInt8]] = [:]
    private var earlyByteCount = 0
    private static let mostEarly = 64 << 20
    /// Whether nothing waits behind a hole.
    var hasAll: Bool { early.isEmpty }

    mutating func add(_ payload: RawSpan, sequence: UInt32, isSYN: Bool) {
        if origin == nil {
            origin = isSYN ? sequence &+ 1 : sequence
            lastSequence = origin ?? 0
        }
        guard payload.byteCount > 0, !isLost else { return }
        let begin = lastOffset + Int64(Int32(bitPattern: (isSYN ? sequence &+ 1 : sequence) &- lastSequence))
        lastSequence = isSYN ? sequence &+ 1 : sequence
        lastOffset = begin
        guard begin <= next else {
            earlyByteCount += payload.byteCount
            guard earlyByteCount < Self.mostEarly else { return isLost = true }
            early[begin] = (0..<payload.byteCount).map { unsafe payload.unsafeLoad(fromByteOffset: $0, as: UInt8.self) }
            return
        }
        scan(payload, at: begin)
        while let (place, bytes) = early.first(where: { $0.key <= next }) {
            early[place] = nil
            earlyByteCount -= bytes.count
            unsafe scan(bytes.span.bytes, at: place)
        }
    }

    private mutating func scan(_ payload: RawSpan, at begin: Int64) {
        var place = Int(max(0, min(next - begin, Int64(payload.byteCount))))
        while place < payload.byteCount, !isLost {
            if skip > 0 {
                let step = Int(min(skip, Int64(payload.byteCount - place)))
                skip -= Int64(step)
                place += step
                continue
            }
            partial.append(unsafe payload.unsafeLoad(fromByteOffset: place, as: UInt8.self))
            place += 1
            guard partial.count == WireHeader.byteCount else { continue }
            defer { partial = [] }
            do {
                let header = try unsafe WireHeader.read(partial.span.bytes)
                skip = Int64(header.payloadByteCount)
                if header.type == .data {
                    frames.append(
                        Frame(
                            streamOffset: begin + Int64(place),
                            objectOffset: header.objectOffset,
                            byteCount: Int(header.payloadByteCount)
                        )
                    )
                }
            } catch WireHeader.Fault.unknownType(let count) {
                skip = Int64(count)
            } catch {
                // Not our protocol, or a hole in the capture.
                isLost = true
            }
        }
        next = max(next, begin + Int64(payload.byteCount))
    }
}

/// What names a datagram of ours in a packet.
struct DatagramKey {
    var flow: UInt32
    var sequence: UInt64

    init?(_ bytes: RawSpan, _ packet: DecodedPacket) {
        guard packet.payloadOffset <= bytes.byteCount,
            let header = try? WireHeader.read(bytes, at: packet.payloadOffset),
            header.type == .data
        else { return nil }
        (flow, sequence) = (header.flow, header.sequence)
    }
}
