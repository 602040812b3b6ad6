#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Writes the blocks of a pcapng file, little-endian, times in nanoseconds.
///
/// The blocks go through a buffer that is allocated once; a packet costs no allocation. The file is made anew, readable by
/// its owner only, and never through a link: a capture is private.
@safe
public final class PcapngWriter {
    public let path: String
    private static let capacity = 1 << 20
    private let descriptor: CInt
    private let buffer: UnsafeMutableRawBufferPointer
    private var used = 0
    private var failure: CaptureFileError?
    private var interfaceCount = 0
    /// Packets written.
    public private(set) var packetCount = 0

    /// Creates the file and its section header.
    ///
    /// - Parameter replacing: Whether a file that is there is written over.
    /// - Throws: ``CaptureFileError`` if it is there already, or cannot be made.
    public init(_ path: String, application: String, comments: [String] = [], replacing: Bool = false)
        throws(CaptureFileError)
    {
        self.path = path
        if replacing { unsafe unlink(path) }
        descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw CaptureFileError(path: path, reason: errno == EEXIST ? "is there already" : systemMessage(errno))
        }
        unsafe buffer = .allocate(byteCount: Self.capacity, alignment: 8)
        block(0x0A0D_0D0A) { options in
            options.u32(0x1A2B_3C4D)
            options.u16(1)
            options.u16(0)
            options.u64(.max)
            for comment in comments { options.option(1, comment) }
            options.option(4, application)
        }
    }

    deinit {
        close(descriptor)
        unsafe buffer.deallocate()
    }

    /// Describes an interface.
    ///
    /// - Returns: Its index, for ``append(interface:time:originalLength:bytes:comment:)``.
    @discardableResult
    public func add(_ interface: CaptureInterface) -> Int {
        block(1) { body in
            body.u16(interface.linkType)
            body.u16(0)
            body.u32(interface.snapLength)
            for comment in interface.comments { body.option(1, comment) }
            if let name = interface.name { body.option(2, name) }
            if let purpose = interface.purpose { body.option(3, purpose) }
            body.option(9, bytes: [9])
            if let filter = interface.filter { body.option(11, bytes: [0] + filter.utf8) }
            if let system = interface.system { body.option(12, system) }
        }
        interfaceCount += 1
        return interfaceCount - 1
    }

    /// Appends a packet.
    ///
    /// - Parameter time: Nanoseconds since 1970.
    /// - Precondition: The interface was added, and at most 262,144 bytes were captured.
    public func append(interface: Int, time: Int64, originalLength: Int, bytes: RawSpan, comment: String? = nil) {
        precondition(interface < interfaceCount, "an interface that was not added")
        precondition(bytes.byteCount <= CaptureReader.longestCapture, "a packet that no reader believes")
        packetCount += 1
        let padded = (bytes.byteCount + 3) & ~3
        let comment = comment.map { Array($0.utf8.prefix(60_000)) }
        let optionLength = comment.map { 8 + ($0.count + 3) & ~3 } ?? 0
        let length = 32 + padded + optionLength
        if Self.capacity - used < length { flush() }
        put(6 as UInt32)
        put(UInt32(length))
        put(UInt32(interface))
        put(UInt32(truncatingIfNeeded: time >> 32))
        put(UInt32(truncatingIfNeeded: time))
        put(UInt32(bytes.byteCount))
        put(UInt32(clamping: originalLength))
        unsafe bytes.withUnsafeBytes { source in
            if source.count > 0 {
                // There is room: it was made above, and the buffer is longer than any block.
                unsafe (buffer.baseAddress! + used).copyMemory(from: source.baseAddress!, byteCount: source.count)
            }
        }
        used += bytes.byteCount
        while used % 4 != 0 { put(0 as UInt8) }
        if let comment {
            put(1 as UInt16)
            put(UInt16(comment.count))
            for byte in comment { put(byte) }
            while used % 4 != 0 { put(0 as UInt8) }
            put(0 as UInt32)
        }
        put(UInt32(length))
    }

    /// Appends the statistics of an interface.
    ///
    /// - Parameter time: Nanoseconds since 1970.
    public func append(_ statistics: CaptureStatistics, interface: Int, time: Int64, comment: String? = nil) {
        block(5) { body in
            body.u32(UInt32(interface))
            body.u32(UInt32(truncatingIfNeeded: time >> 32))
            body.u32(UInt32(truncatingIfNeeded: time))
            if let comment { body.option(1, comment) }
            for (code, value) in [
                (4, statistics.received), (5, statistics.interfaceDropped), (6, statistics.accepted),
                (7, statistics.systemDropped), (8, statistics.delivered),
            ] as [(UInt16, UInt64?)] {
                guard let value else { continue }
                body.option(code, bytes: (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) })
            }
        }
    }

    /// Hands what was written to the system.
    public func flush() {
        var written = 0
        while written < used, failure == nil {
            let count = unsafe write(descriptor, buffer.baseAddress! + written, used - written)
            if count < 0, errno == EINTR { continue }
            if count <= 0 {
                failure = CaptureFileError(path: path, reason: systemMessage(errno))
            } else {
                written += count
            }
        }
        used = 0
    }

    /// Writes what is left.
    ///
    /// - Throws: What went wrong since the file was made, if anything did.
    public func finish() throws(CaptureFileError) {
        flush()
        if let failure { throw failure }
    }

    @inline(__always)
    private func put<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value) {
        precondition(Self.capacity - used >= MemoryLayout<Value>.size, "a block longer than the buffer")
        unsafe buffer.storeBytes(of: value.littleEndian, toByteOffset: used, as: Value.self)
        used += MemoryLayout<Value>.size
    }

    /// A block that is not a packet.
    private func block(_ type: UInt32, _ write: (inout BlockBody) -> Void) {
        var body = BlockBody()
        write(&body)
        if body.hasOptions { body.u32(0) }
        // Names and comments may be long; a block may not.
        let length = 12 + body.bytes.count
        guard length <= Self.capacity else {
            failure = failure ?? CaptureFileError(path: path, reason: "a block of \(length) bytes")
            return
        }
        if Self.capacity - used < length { flush() }
        put(type)
        put(UInt32(length))
        for byte in body.bytes { put(byte) }
        put(UInt32(length))
    }
}

/// The body of a block in the making.
private struct BlockBody {
    var bytes: [UInt8] = []
    var hasOptions = false

    private mutating func integer(_ value: some FixedWidthInteger, _ count: Int) {
        for index in 0..<count {
            bytes.append(UInt8(truncatingIfNeeded: UInt64(truncatingIfNeeded: value) >> (8 * index)))
        }
    }
    mutating func u16(_ value: UInt16) { integer(value, 2) }
    mutating func u32(_ value: UInt32) { integer(value, 4) }
    mutating func u64(_ value: UInt64) { integer(value, 8) }
    mutating func option(_ code: UInt16, _ text: String) { option(code, bytes: Array(text.utf8)) }
    mutating func option(_ code: UInt16, bytes value: [UInt8]) {
        let value = value.prefix(60_000)
        hasOptions = true
        u16(code)
        u16(UInt16(value.count))
        bytes += value
        while bytes.count % 4 != 0 { bytes.append(0) }
    }
}
