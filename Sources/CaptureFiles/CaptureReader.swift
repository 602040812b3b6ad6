/// One packet of a capture file.
///
/// Small and trivially copied: it is made for every packet of files that have millions.
public struct CapturedPacket: Sendable {
    private var stamp: Int64
    private var offset: Int
    private var capturedLength: UInt32
    private var wireLength: UInt32
    private var interfaceIndex: UInt32
    private var optionsLength: UInt32 = 0
    private var hasStamp: Bool
    /// Whether the time's fraction is a second or more, or the time cannot be told in nanoseconds: counted, not repaired.
    public internal(set) var hasOddTime = false
    private var isSwapped = false

    init(time: Int64?, interface: Int, bytes: Range<Int>, originalLength: Int) {
        stamp = time ?? 0
        hasStamp = time != nil
        offset = bytes.lowerBound
        capturedLength = UInt32(truncatingIfNeeded: bytes.count)
        wireLength = UInt32(truncatingIfNeeded: originalLength)
        interfaceIndex = UInt32(truncatingIfNeeded: interface)
    }

    /// Nanoseconds since 1970, UTC, cut to whole ones; `nil` where the file has no time (a Simple Packet Block).
    public var time: Int64? { hasStamp ? stamp : nil }
    /// Index into ``CaptureReader/interfaces``.
    public var interface: Int { Int(interfaceIndex) }
    /// Where the captured bytes lie in the file.
    public var bytes: Range<Int> { offset..<offset + Int(capturedLength) }
    /// Bytes that the packet had on the wire.
    public var originalLength: Int { Int(wireLength) }

    /// Where the options of its block lie, if it has any (pcapng), in the byte order of its section.
    var options: Range<Int>? {
        let begin = offset + ((Int(capturedLength) + 3) & ~3)
        return optionsLength == 0 ? nil : begin..<begin + Int(optionsLength)
    }
    var order: ByteOrder { ByteOrder(isSwapped: isSwapped) }

    mutating func setOptions(_ length: Int, _ order: ByteOrder) {
        optionsLength = UInt32(truncatingIfNeeded: length)
        isSwapped = order.isSwapped
    }
}

/// An interface of a capture file: where packets were captured, and how their times are told.
public struct CaptureInterface: Hashable, Sendable {
    /// A number of the registry of link-layer header types (LINKTYPE_…).
    public var linkType: UInt16
    /// The most bytes kept of a packet; 0 for no limit.
    public var snapLength: UInt32
    public var resolution: TimeResolution
    /// Seconds that are added to each time (if_tsoffset).
    public var timeOffset: Int64 = 0
    public var name: String?
    /// What it is for (if_description).
    public var purpose: String?
    public var filter: String?
    public var system: String?
    public var comments: [String] = []
    /// The last statistics that the file has of it.
    public var statistics = CaptureStatistics()
    /// The comments of all its statistics, each with their time in nanoseconds since 1970.
    public var statisticsComments: [StatisticsComment] = []

    public init(linkType: UInt16, snapLength: UInt32 = 0, resolution: TimeResolution = .microseconds) {
        self.linkType = linkType
        self.snapLength = snapLength
        self.resolution = resolution
    }
}

/// A comment of an Interface Statistics Block.
public struct StatisticsComment: Hashable, Sendable {
    public var time: Int64
    public var text: String
}

/// What an Interface Statistics Block says; `nil` where it is silent.
public struct CaptureStatistics: Hashable, Sendable {
    /// Packets that the interface received (isb_ifrecv).
    public var received: UInt64?
    /// … that it dropped for want of resources (isb_ifdrop).
    public var interfaceDropped: UInt64?
    /// … that the filter let through (isb_filteraccept).
    public var accepted: UInt64?
    /// … that the system dropped (isb_osdrop).
    public var systemDropped: UInt64?
    /// … that reached the program (isb_usrdeliv).
    public var delivered: UInt64?
    public init() {}
}

/// Units of a file's times: a power of ten or of two of a second.
public struct TimeResolution: Hashable, Sendable {
    public var exponent: UInt8
    public var isBinary: Bool
    public init(exponent: UInt8, isBinary: Bool = false) {
        self.exponent = exponent
        self.isBinary = isBinary
    }
    public static let microseconds = TimeResolution(exponent: 6)
    public static let nanoseconds = TimeResolution(exponent: 9)

    /// Nanoseconds of a number of units, cut to whole ones; `nil` if they do not fit.
    func nanoseconds(_ units: UInt64, offset: Int64) -> Int64? {
        if exponent == 9, !isBinary, offset == 0 { return Int64(exactly: units) }
        return anyNanoseconds(units, offset: offset)
    }

    private func anyNanoseconds(_ units: UInt64, offset: Int64) -> Int64? {
        var whole: UInt128
        if isBinary {
            whole = (UInt128(units) * 1_000_000_000) >> UInt128(min(exponent, 64))
        } else {
            whole = UInt128(units)
            if exponent <= 9 {
                for _ in exponent..<9 { whole *= 10 }
            } else {
                for _ in 9..<exponent { whole /= 10 }
            }
        }
        let sum = Int128(truncatingIfNeeded: whole) + Int128(offset) * 1_000_000_000
        return Int64(exactly: sum)
    }
}

/// What a file lacks or has wrong, and where.
public struct CaptureProblem: Hashable, Sendable, CustomStringConvertible {
    /// Bytes from the start of the file.
    public var offset: Int
    public var reason: String
    public var description: String { "byte \(offset): \(reason)" }
}

/// Reads the packets of a pcap or pcapng file, in either byte order.
///
/// pcap with micro- or nanoseconds (and the variant of Alexey Kuznetsov); pcapng with any number of sections and
/// interfaces, each with its own resolution, Enhanced, Simple and obsolete packets, statistics and comments; unknown blocks
/// are skipped. What is wrong ends the reading: the packets before it are good, and ``problem`` says where it stopped and
/// why. Nothing is allocated by a number in the file. A packet's bytes are `reader.file.span.extracting(packet.bytes)`.
public struct CaptureReader {
    public enum Format: String, Sendable { case pcap, pcapng }

    public let file: CaptureBytes
    public private(set) var format = Format.pcap
    /// All interfaces that were met so far.
    public private(set) var interfaces: [CaptureInterface] = []
    /// Why reading ended before the end of the file, if it did.
    public private(set) var problem: CaptureProblem?
    /// Comments of the sections.
    public private(set) var comments: [String] = []
    /// Packets read.
    public private(set) var packetCount = 0
    /// Packets whose time has a fraction of a second or more.
    public private(set) var oddTimeCount = 0
    /// Sections met; 1 in a pcap file.
    public private(set) var sectionCount = 0
    /// Blocks that are no packets and not understood.
    public private(set) var skippedBlockCount = 0

    private var offset = 0
    private var order = ByteOrder.little
    /// The first interface of this section.
    private var sectionBegin = 0
    private var recordHeader = 16
    private var isSwappedLengths = false

    static let longestCapture = 262_144
    static let longestBlock = 16 << 20
    static let mostInterfaces = 65_536

    /// Reads the file's header.
    public init(_ file: CaptureBytes) {
        self.file = file
        let bytes = file.span
        guard bytes.byteCount >= 4 else {
            problem = CaptureProblem(offset: 0, reason: bytes.byteCount == 0 ? "the file is empty" : "no capture file")
            return
        }
        let magic: UInt32 = ByteOrder.little.load(bytes, 0)
        switch magic {
        case 0x0A0D_0D0A: format = .pcapng
        case 0xA1B2_C3D4, 0xA1B2_3C4D, 0xA1B2_CD34: readHeader(.little, magic)
        case 0xD4C3_B2A1, 0x4D3C_B2A1, 0x34CD_B2A1: readHeader(.big, magic.byteSwapped)
        default:
            problem = CaptureProblem(
                offset: 0,
                reason: "neither pcap nor pcapng: it begins with \(hexadecimal(magic.byteSwapped))"
            )
        }
    }

    /// Maps and reads a file.
    public init(path: String) throws(CaptureFileError) { self.init(try CaptureBytes(path: path)) }

    /// The next packet; `nil` at the end, or where the file is wrong.
    public mutating func next() -> CapturedPacket? {
        guard problem == nil else { return nil }
        let packet = format == .pcap ? nextRecord() : nextInBlocks()
        if let packet {
            packetCount += 1
            if packet.hasOddTime { oddTimeCount += 1 }
        }
        return packet
    }

    /// The comments of a packet.
    public func comments(of packet: CapturedPacket) -> [String] {
        guard let options = packet.options else { return [] }
        var comments: [String] = []
        readOptions(options, packet.order) { code, value in if code == 1 { comments.append(text(value)) } }
        return comments
    }

    private mutating func stop(_ offset: Int, _ reason: String) -> CapturedPacket? {
        problem = CaptureProblem(offset: offset, reason: reason)
        return nil
    }

    // MARK: pcap

    private mutating func readHeader(_ order: ByteOrder, _ magic: UInt32) {
        self.order = order
        let file = file
        let bytes = file.span
        guard bytes.byteCount >= 24 else {
            problem = CaptureProblem(offset: 0, reason: "the file header has \(bytes.byteCount) of 24 bytes")
            return
        }
        let (major, minor): (UInt16, UInt16) = (order.load(bytes, 4), order.load(bytes, 6))
        guard major == 2 else {
            problem = CaptureProblem(offset: 4, reason: "pcap version \(major).\(minor) is not known; expected 2.x")
            return
        }
        // Before 2.3 the lengths stood the other way round; 2.3 was written with either.
        isSwappedLengths = minor < 3
        recordHeader = magic == 0xA1B2_CD34 ? 24 : 16
        let type: UInt32 = order.load(bytes, 20)
        interfaces = [
            CaptureInterface(
                // The upper half holds the length of a frame check sequence.
                linkType: UInt16(truncatingIfNeeded: type),
                snapLength: order.load(bytes, 16),
                resolution: magic == 0xA1B2_3C4D ? .nanoseconds : .microseconds
            )
        ]
        sectionCount = 1
        offset = 24
    }

    private mutating func nextRecord() -> CapturedPacket? {
        let file = file
        let bytes = file.span
        let left = bytes.byteCount - offset
        guard left > 0 else { return nil }
        guard left >= recordHeader else {
            return stop(offset, "a packet's header has \(left) of \(recordHeader) bytes")
        }
        let seconds: UInt32 = order.load(bytes, offset)
        let fraction: UInt32 = order.load(bytes, offset + 4)
        var captured: UInt32 = order.load(bytes, offset + 8)
        var original: UInt32 = order.load(bytes, offset + 12)
        if isSwappedLengths { swap(&captured, &original) }
        guard captured <= Self.longestCapture else {
            return stop(
                offset + 8,
                "a packet of \(captured) captured bytes; at most \(Self.longestCapture) are believed"
            )
        }
        let begin = offset + recordHeader
        guard bytes.byteCount - begin >= Int(captured) else {
            return stop(offset, "a packet has \(bytes.byteCount - begin) of its \(captured) captured bytes")
        }
        offset = begin + Int(captured)
        let isNanoseconds = interfaces[0].resolution.exponent == 9
        let scale: Int64 = isNanoseconds ? 1 : 1_000
        var packet = CapturedPacket(
            time: Int64(seconds) * 1_000_000_000 + Int64(fraction) * scale,
            interface: 0,
            bytes: begin..<offset,
            originalLength: Int(original)
        )
        packet.hasOddTime = fraction >= (isNanoseconds ? 1_000_000_000 : 1_000_000)
        return packet
    }

    // MARK: pcapng

    private enum Block {
        static let section: UInt32 = 0x0A0D_0D0A
        static let interface: UInt32 = 1
        static let obsoletePacket: UInt32 = 2
        static let simplePacket: UInt32 = 3
        static let statistics: UInt32 = 5
        static let enhancedPacket: UInt32 = 6
    }

    private mutating func nextInBlocks() -> CapturedPacket? {
        let file = file
        let bytes = file.span
        while true {
            let left = bytes.byteCount - offset
            guard left > 0 else { return nil }
            guard left >= 12 else { return stop(offset, "a block's header has \(left) of 12 bytes") }
            let begin = offset
            let type: UInt32 = order.load(bytes, begin)
            if type == Block.section {
                let magic: UInt32 = ByteOrder.little.load(bytes, begin + 8)
                switch magic {
                case 0x1A2B_3C4D: order = .little
                case 0x4D3C_2B1A: order = .big
                default: return stop(begin + 8, "a section's byte-order magic is \(hexadecimal(magic.byteSwapped))")
                }
            } else if sectionCount == 0 {
                return stop(begin, "the file does not begin with a section")
            }
            let length = Int(order.load(bytes, begin + 4, as: UInt32.self))
            guard length >= 12, length % 4 == 0, length <= Self.longestBlock else {
                return stop(
                    begin + 4,
                    "a block of \(length) bytes; expected a multiple of 4 from 12 to \(Self.longestBlock)"
                )
            }
            guard length <= left else { return stop(begin, "a block has \(left) of its \(length) bytes") }
            let trailer = Int(order.load(bytes, begin + length - 4, as: UInt32.self))
            guard trailer == length else {
                return stop(begin + length - 4, "a block ends with the length \(trailer) and begins with \(length)")
            }
            offset = begin + length
            let body = begin + 8..<begin + length - 4
            switch type {
            case Block.section: readSection(body)
            case Block.interface: readInterface(body)
            case Block.statistics: readStatistics(body)
            case Block.enhancedPacket, Block.obsoletePacket:
                if let packet = readPacket(bytes, body, isObsolete: type == Block.obsoletePacket) { return packet }
            case Block.simplePacket: if let packet = readSimplePacket(body) { return packet }
            default: skippedBlockCount += 1
            }
            guard problem == nil else { return nil }
        }
    }

    private mutating func readSection(_ body: Range<Int>) {
        guard body.count >= 16 else { return fail(body, "a section header of \(body.count) bytes; expected 16") }
        let file = file
        let (major, minor): (UInt16, UInt16) = (
            order.load(file.span, body.lowerBound + 4), order.load(file.span, body.lowerBound + 6)
        )
        // 1.2 differs from 1.0 in nothing (it was written by mistake).
        guard major == 1, minor == 0 || minor == 2 else {
            problem = CaptureProblem(
                offset: body.lowerBound + 4,
                reason: "pcapng version \(major).\(minor) is not known; expected 1.0"
            )
            return
        }
        sectionCount += 1
        sectionBegin = interfaces.count
        var comments: [String] = []
        problem = readOptions(body.lowerBound + 16..<body.upperBound, order) { code, value in
            if code == 1 { comments.append(text(value)) }
        }
        self.comments += comments
    }

    private mutating func fail(_ body: Range<Int>, _ reason: String) {
        problem = CaptureProblem(offset: body.lowerBound - 8, reason: reason)
    }

    private mutating func readInterface(_ body: Range<Int>) {
        guard body.count >= 8 else { return fail(body, "an interface description of \(body.count) bytes; expected 8") }
        guard interfaces.count < Self.mostInterfaces else {
            return fail(body, "more than \(Self.mostInterfaces) interfaces")
        }
        var interface = CaptureInterface(
            linkType: order.load(file.span, body.lowerBound),
            snapLength: order.load(file.span, body.lowerBound + 4)
        )
        var reason: String?
        let file = file
        let bytes = file.span
        let misfit = readOptions(body.lowerBound + 8..<body.upperBound, order) { code, value in
            switch code {
            case 1: interface.comments.append(text(value))
            case 2: interface.name = text(value)
            case 3: interface.purpose = text(value)
            case 9:
                // Of another length it is no such option, and microseconds stand.
                guard value.count == 1 else { return }
                let raw = bytes.byte(value.lowerBound)
                let resolution = TimeResolution(exponent: raw & 0x7F, isBinary: raw & 0x80 != 0)
                if resolution.exponent > (resolution.isBinary ? 63 : 18) {
                    reason =
                        "times in \(resolution.isBinary ? "2" : "10")^-\(resolution.exponent) seconds; at most "
                        + "\(resolution.isBinary ? "2^-63" : "10^-18") is read"
                } else {
                    interface.resolution = resolution
                }
            case 11: if value.count > 1 { interface.filter = text(value.lowerBound + 1..<value.upperBound) }
            case 12: interface.system = text(value)
            case 14: if value.count == 8 { interface.timeOffset = order.load(bytes, value.lowerBound) }
            default: break
            }
        }
        if let reason { return fail(body, reason) }
        if let misfit { return problem = misfit }
        interfaces.append(interface)
    }

    private mutating func readStatistics(_ body: Range<Int>) {
        guard body.count >= 12 else { return fail(body, "interface statistics of \(body.count) bytes; expected 12") }
        let index = sectionBegin + Int(order.load(file.span, body.lowerBound, as: UInt32.self))
        guard index < interfaces.count else { return fail(body, "statistics of an interface that is not described") }
        var statistics = interfaces[index].statistics
        let file = file
        let bytes = file.span
        var comments: [String] = []
        readOptions(body.lowerBound + 12..<body.upperBound, order) { code, value in
            if code == 1 { comments.append(text(value)) }
            guard value.count == 8 else { return }
            let number: UInt64 = order.load(bytes, value.lowerBound)
            switch code {
            case 4: statistics.received = number
            case 5: statistics.interfaceDropped = number
            case 6: statistics.accepted = number
            case 7: statistics.systemDropped = number
            case 8: statistics.delivered = number
            default: break
            }
        }
        interfaces[index].statistics = statistics
        let units =
            UInt64(order.load(bytes, body.lowerBound + 4, as: UInt32.self)) << 32
            | UInt64(order.load(bytes, body.lowerBound + 8, as: UInt32.self))
        let (resolution, offset) = (interfaces[index].resolution, interfaces[index].timeOffset)
        guard let time = resolution.nanoseconds(units, offset: offset) else { return }
        interfaces[index].statisticsComments += comments.map { StatisticsComment(time: time, text: $0) }
    }

    @inline(__always)
    private mutating func readPacket(_ bytes: RawSpan, _ body: Range<Int>, isObsolete: Bool) -> CapturedPacket? {
        guard body.count >= 20 else {
            fail(body, "a packet block of \(body.count) bytes; expected at least 20")
            return nil
        }
        let begin = body.lowerBound
        let index =
            sectionBegin
            + (isObsolete
                ? Int(order.load(bytes, begin, as: UInt16.self)) : Int(order.load(bytes, begin, as: UInt32.self)))
        guard index < interfaces.count else {
            fail(
                body,
                "a packet of interface \(index - sectionBegin), and \(interfaces.count - sectionBegin) are described"
            )
            return nil
        }
        let units =
            UInt64(order.load(bytes, begin + 4, as: UInt32.self)) << 32
            | UInt64(order.load(bytes, begin + 8, as: UInt32.self))
        let captured = Int(order.load(bytes, begin + 12, as: UInt32.self))
        let original = Int(order.load(bytes, begin + 16, as: UInt32.self))
        let padded = (captured + 3) & ~3
        guard captured <= Self.longestCapture, padded <= body.count - 20 else {
            fail(
                body,
                "a packet of \(captured) captured bytes in a block that has room for \(min(body.count - 20, Self.longestCapture))"
            )
            return nil
        }
        var packet = CapturedPacket(
            time: interfaces[index].resolution.nanoseconds(units, offset: interfaces[index].timeOffset),
            interface: index,
            bytes: begin + 20..<begin + 20 + captured,
            originalLength: original
        )
        if packet.time == nil { packet.hasOddTime = true }
        packet.setOptions(body.upperBound - (begin + 20 + padded), order)
        return packet
    }

    private mutating func readSimplePacket(_ body: Range<Int>) -> CapturedPacket? {
        guard body.count >= 4 else {
            fail(body, "a simple packet of \(body.count) bytes; expected at least 4")
            return nil
        }
        guard sectionBegin < interfaces.count else {
            fail(body, "a simple packet, and no interface is described")
            return nil
        }
        let original = Int(order.load(file.span, body.lowerBound, as: UInt32.self))
        let snap = Int(interfaces[sectionBegin].snapLength)
        let limit = snap == 0 ? original : min(snap, original)
        guard limit <= body.count - 4 else {
            fail(body, "a simple packet of \(limit) bytes in a block that has room for \(body.count - 4)")
            return nil
        }
        return CapturedPacket(
            time: nil,
            interface: sectionBegin,
            bytes: body.lowerBound + 4..<body.lowerBound + 4 + limit,
            originalLength: original
        )
    }

    /// Calls `each` with the code and the value's place of every option; ends where they do not fit.
    ///
    /// - Returns: What does not fit, if something does not.
    @discardableResult
    private func readOptions(_ range: Range<Int>, _ order: ByteOrder, each: (UInt16, Range<Int>) -> Void)
        -> CaptureProblem?
    {
        var place = range.lowerBound
        while range.upperBound - place >= 4 {
            let code: UInt16 = order.load(file.span, place)
            let length = Int(order.load(file.span, place + 2, as: UInt16.self))
            guard code != 0 else { return nil }
            guard length <= range.upperBound - place - 4 else {
                let room = range.upperBound - place - 4
                return CaptureProblem(
                    offset: place,
                    reason: "an option of \(length) bytes where \(room) are left of its block"
                )
            }
            each(code, place + 4..<place + 4 + length)
            place += 4 + (length + 3) & ~3
        }
        return nil
    }

    /// Text of the file as it stands; what is no UTF-8 is replaced, and what follows a NUL left out.
    private func text(_ range: Range<Int>) -> String {
        String(decoding: file.span.array(range).prefix { $0 != 0 }, as: UTF8.self)
    }
}

func hexadecimal(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }
