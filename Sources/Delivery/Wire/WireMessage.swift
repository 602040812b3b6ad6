/// A message's payload as a typed value: what follows a ``WireHeader``.
public protocol WirePayload: Sendable, Equatable {
    /// The type that its header says.
    static var type: WireType { get }
    /// Appends the payload's bytes.
    func append(to bytes: inout [UInt8])
    /// Reads a payload; `nil` if its bytes are not one.
    init?(_ payload: RawSpan)
}

extension WirePayload {
    /// Header and payload. On UDP a HELLO is padded to 1,200 bytes, so that it may be answered with three times as many.
    ///
    /// - Precondition: The payload has at most 65,535 bytes.
    public func message(
        flow: UInt32,
        sequence: UInt64,
        sendTime: UInt64,
        flags: WireFlags = [],
        paddedTo byteCount: Int = 0
    ) -> [UInt8] {
        var payload: [UInt8] = []
        append(to: &payload)
        while WireHeader.byteCount + payload.count < byteCount { payload.append(0) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(WireHeader.byteCount + payload.count)
        WireHeader(
            Self.type,
            flags: flags,
            flow: flow,
            sequence: sequence,
            sendTime: sendTime,
            payloadByteCount: UInt16(payload.count)
        ).append(to: &bytes)
        return bytes + payload
    }
}

/// The bytes that every UDP HELLO has, padding included.
public let helloDatagramByteCount = 1_200
/// Bytes of a block, the unit of digests, whatever the size of a chunk.
public let blockByteCount: UInt64 = 65_536
/// Bytes of a cookie.
public let cookieByteCount = 16

/// Which object a flow is about.
public struct Hello: WirePayload {
    public static let type = WireType.hello
    /// The longest name, in bytes.
    public static let nameLimit = 1_024
    public var cookie: [UInt8]
    /// As it came: not known to be UTF-8, nor to be harmless.
    public var name: [UInt8]

    public init(cookie: [UInt8] = Array(repeating: 0, count: cookieByteCount), name: [UInt8]) {
        self.cookie = cookie
        self.name = name
    }

    public func append(to bytes: inout [UInt8]) {
        bytes += cookie
        bytes.appendInteger(UInt16(name.count))
        bytes += name
    }

    public init?(_ payload: RawSpan) {
        var reader = PayloadReader(payload)
        guard let cookie = reader.bytes(cookieByteCount), let count = reader.integer(UInt16.self),
            let name = reader.bytes(Int(count))
        else { return nil }
        self.cookie = cookie
        self.name = name
    }
}

/// Shows that an address is the client's own.
public struct Cookie: WirePayload {
    public static let type = WireType.cookie
    public var bytes: [UInt8]
    public init(_ bytes: [UInt8]) { self.bytes = bytes }
    public func append(to bytes: inout [UInt8]) { bytes += self.bytes }
    public init?(_ payload: RawSpan) {
        var reader = PayloadReader(payload)
        guard let bytes = reader.bytes(cookieByteCount), reader.isAtEnd else { return nil }
        self.bytes = bytes
    }
}

/// What an object is.
public struct Offer: WirePayload {
    public static let type = WireType.offer
    public var byteCount: UInt64
    /// Seconds since 1970.
    public var modified: Int64
    public var blockByteCount: UInt32
    /// SHA-256 of the object; zeros if the client asked for none.
    public var digest: [UInt8]
    /// SHA-256 of the digests of all blocks, one after the other.
    public var root: [UInt8]

    public init(byteCount: UInt64, modified: Int64, blockByteCount: UInt32, digest: [UInt8], root: [UInt8]) {
        self.byteCount = byteCount
        self.modified = modified
        self.blockByteCount = blockByteCount
        self.digest = digest
        self.root = root
    }

    public func append(to bytes: inout [UInt8]) {
        bytes.appendInteger(byteCount)
        bytes.appendInteger(UInt64(bitPattern: modified))
        bytes.appendInteger(blockByteCount)
        bytes += digest
        bytes += root
    }

    public init?(_ payload: RawSpan) {
        var reader = PayloadReader(payload)
        guard let byteCount = reader.integer(UInt64.self), let modified = reader.integer(UInt64.self),
            let block = reader.integer(UInt32.self), let digest = reader.bytes(32), let root = reader.bytes(32),
            reader.isAtEnd, byteCount < 1 << 48
        else { return nil }
        self.init(
            byteCount: byteCount,
            modified: Int64(bitPattern: modified),
            blockByteCount: block,
            digest: digest,
            root: root
        )
    }

    /// Whether it is offered with digests.
    public var hasDigests: Bool { digest.contains { $0 != 0 } }

    /// Whether both offer the same object, as far as what they say goes.
    public func isSameObject(as other: Offer) -> Bool {
        byteCount == other.byteCount
            && (!hasDigests || !other.hasDigests || (digest == other.digest && root == other.root))
    }
}

/// Ranges of an object.
public struct RangeRequest: WirePayload {
    public static let type = WireType.request
    /// The most ranges in one request: they fit a datagram of 1,200 bytes.
    public static let rangeLimit = 90
    public var cookie: [UInt8]
    /// Chosen by the client, the same again for what is asked again.
    public var id: UInt32
    public var ranges: [Range<UInt64>]

    public init(cookie: [UInt8] = Array(repeating: 0, count: cookieByteCount), id: UInt32, ranges: [Range<UInt64>]) {
        self.cookie = cookie
        self.id = id
        self.ranges = ranges
    }

    public func append(to bytes: inout [UInt8]) {
        bytes += cookie
        bytes.appendInteger(id)
        bytes.appendInteger(UInt16(ranges.count))
        for range in ranges {
            bytes.appendInteger(range.lowerBound)
            bytes.appendInteger(UInt32(range.count))
        }
    }

    public init?(_ payload: RawSpan) {
        var reader = PayloadReader(payload)
        guard let cookie = reader.bytes(cookieByteCount), let id = reader.integer(UInt32.self),
            let count = reader.integer(UInt16.self), (1...Self.rangeLimit).contains(Int(count))
        else { return nil }
        var ranges: [Range<UInt64>] = []
        for _ in 0..<count {
            guard let offset = reader.integer(UInt64.self), let length = reader.integer(UInt32.self),
                length > 0, offset < 1 << 48
            else { return nil }
            ranges.append(offset..<offset + UInt64(length))
        }
        guard reader.isAtEnd else { return nil }
        self.init(cookie: cookie, id: id, ranges: ranges)
    }
}

/// A request has been answered to its end.
public struct RequestDone: WirePayload {
    public static let type = WireType.done
    public var id: UInt32
    /// The sequence of the last DATA that was sent for it.
    public var lastSequence: UInt64
    public init(id: UInt32, lastSequence: UInt64) {
        self.id = id
        self.lastSequence = lastSequence
    }
    public func append(to bytes: inout [UInt8]) {
        bytes.appendInteger(id)
        bytes.appendInteger(lastSequence)
    }
    public init?(_ payload: RawSpan) {
        var reader = PayloadReader(payload)
        guard let id = reader.integer(UInt32.self), let last = reader.integer(UInt64.self), reader.isAtEnd else {
            return nil
        }
        self.init(id: id, lastSequence: last)
    }
}

/// A request is not wanted any more.
public struct RequestCancel: WirePayload {
    public static let type = WireType.cancel
    public var cookie: [UInt8]
    public var id: UInt32
    public init(cookie: [UInt8] = Array(repeating: 0, count: cookieByteCount), id: UInt32) {
        self.cookie = cookie
        self.id = id
    }
    public func append(to bytes: inout [UInt8]) {
        bytes += cookie
        bytes.appendInteger(id)
    }
    public init?(_ payload: RawSpan) {
        var reader = PayloadReader(payload)
        guard let cookie = reader.bytes(cookieByteCount), let id = reader.integer(UInt32.self), reader.isAtEnd else {
            return nil
        }
        self.init(cookie: cookie, id: id)
    }
}

/// Digests of so many blocks, please.
public struct BlocksRequest: WirePayload {
    public static let type = WireType.blocks
    public var cookie: [UInt8]
    public var first: UInt32
    public var count: UInt32
    public init(cookie: [UInt8] = Array(repeating: 0, count: cookieByteCount), first: UInt32, count: UInt32) {
        self.cookie = cookie
        self.first = first
        self.count = count
    }
    public func append(to bytes: inout [UInt8]) {
        bytes += cookie
        bytes.appendInteger(first)
        bytes.appendInteger(count)
    }
    public init?(_ payload: RawSpan) {
        var reader = PayloadReader(payload)
        guard let cookie = reader.bytes(cookieByteCount), let first = reader.integer(UInt32.self),
            let count = reader.integer(UInt32.self), reader.isAtEnd
        else { return nil }
        self.init(cookie: cookie, first: first, count: count)
    }
}

/// Digests of blocks, SHA-256 of each; perhaps fewer than were asked for.
public struct BlocksAnswer: WirePayload {
    public static let type = WireType.blocks
    /// The most digests in a datagram of 1,200 bytes, and in a frame.
    public static let datagramLimit = 34
    public static let frameLimit = 2_000
    public var first: UInt32
    /// 32 bytes each.
    public var digests: [UInt8]
    public init(first: UInt32, digests: [UInt8]) {
        self.first = first
        self.digests = digests
    }
    public func append(to bytes: inout [UInt8]) {
        bytes.appendInteger(first)
        bytes.appendInteger(UInt32(digests.count / 32))
        bytes += digests
    }
    public init?(_ payload: RawSpan) {
        var reader = PayloadReader(payload)
        guard let first = reader.integer(UInt32.self), let count = reader.integer(UInt32.self),
            count <= Self.frameLimit,
            let digests = reader.bytes(Int(count) * 32), reader.isAtEnd
        else { return nil }
        self.init(first: first, digests: digests)
    }
}

/// What a server cannot do.
public struct WireFailure: WirePayload {
    public static let type = WireType.error
    public enum Code: UInt16, Sendable {
        case noSuchObject = 1, badName, badRange, busy, malformed, objectChanged, shuttingDown
    }
    public var code: UInt16
    public var text: [UInt8]
    public init(_ code: Code, _ text: String) {
        self.code = code.rawValue
        self.text = Array(text.utf8.prefix(512))
    }
    public func append(to bytes: inout [UInt8]) {
        bytes.appendInteger(code)
        bytes += text
    }
    public init?(_ payload: RawSpan) {
        var reader = PayloadReader(payload)
        guard let code = reader.integer(UInt16.self), let text = reader.bytes(min(reader.remaining, 512)) else {
            return nil
        }
        self.code = code
        self.text = text
    }
    /// The text for a person: control characters and what is not UTF-8 replaced.
    public var words: String {
        String(decoding: text, as: UTF8.self).unicodeScalars.reduce(into: "") { words, scalar in
            words.unicodeScalars.append(scalar.value < 0x20 || scalar.value == 0x7F ? "\u{FFFD}" : scalar)
        }
    }
}

/// Reads a payload from the front, checking every step.
private struct PayloadReader: ~Escapable {
    private let span: RawSpan
    private var position = 0

    @_lifetime(copy span)
    init(_ span: RawSpan) { self.span = span }

    var remaining: Int { span.byteCount - position }
    var isAtEnd: Bool { remaining == 0 }

    @_lifetime(self: copy self)
    mutating func bytes(_ count: Int) -> [UInt8]? {
        guard count >= 0, count <= remaining else { return nil }
        defer { position += count }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        for index in position..<position + count {
            bytes.append(unsafe span.unsafeLoad(fromByteOffset: index, as: UInt8.self))
        }
        return bytes
    }

    @_lifetime(self: copy self)
    mutating func integer<Value: FixedWidthInteger & BitwiseCopyable>(_: Value.Type) -> Value? {
        let count = Value.bitWidth / 8
        guard count <= remaining else { return nil }
        defer { position += count }
        return Value(bigEndian: unsafe span.unsafeLoadUnaligned(fromByteOffset: position, as: Value.self))
    }
}
