#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// The bytes of a capture file: mapped from a file, or given.
///
/// Nobody writes them; every read of an offset is checked.
@safe
public final class CaptureBytes: @unchecked Sendable {
    /// How many there are.
    public let count: Int
    private let base: UnsafeRawPointer
    private let isMapped: Bool

    /// Copies bytes that are in memory already.
    public init(_ bytes: [UInt8]) {
        count = bytes.count
        let copy = UnsafeMutableRawPointer.allocate(byteCount: max(1, bytes.count), alignment: 8)
        unsafe bytes.withUnsafeBytes {
            if $0.count > 0 { unsafe copy.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        }
        unsafe base = UnsafeRawPointer(copy)
        isMapped = false
    }

    /// Maps a file.
    ///
    /// - Throws: ``CaptureFileError`` if it cannot be opened, or is no regular file.
    public init(path: String) throws(CaptureFileError) {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw CaptureFileError(path: path, reason: systemMessage(errno)) }
        defer { close(descriptor) }
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else {
            throw CaptureFileError(path: path, reason: systemMessage(errno))
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw CaptureFileError(path: path, reason: "not a regular file")
        }
        count = Int(status.st_size)
        guard count > 0 else {
            unsafe base = UnsafeRawPointer(UnsafeMutableRawPointer.allocate(byteCount: 1, alignment: 1))
            isMapped = false
            return
        }
        let address = unsafe mmap(nil, count, PROT_READ, MAP_PRIVATE, descriptor, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else {
            throw CaptureFileError(path: path, reason: systemMessage(errno))
        }
        unsafe base = UnsafeRawPointer(address)
        isMapped = true
    }

    deinit {
        if isMapped { unsafe munmap(UnsafeMutableRawPointer(mutating: base), count) } else { unsafe base.deallocate() }
    }

    /// All of them.
    public var span: RawSpan {
        @_lifetime(borrow self)
        get { unsafe _overrideLifetime(RawSpan(_unsafeStart: base, byteCount: count), borrowing: self) }
    }
}

/// A capture file that cannot be read or written at all.
public struct CaptureFileError: Error, CustomStringConvertible, Sendable {
    public var path: String
    public var reason: String
    public init(path: String, reason: String) {
        self.path = path
        self.reason = reason
    }
    public var description: String { "\(path): error: \(reason)" }
}

/// What the system says of an error number.
func systemMessage(_ number: CInt) -> String { unsafe String(cString: strerror(number)) }

/// Integers of a file in its byte order.
struct ByteOrder: Sendable {
    /// Whether the file's order is not the machine's.
    var isSwapped: Bool

    @inline(__always) static var little: ByteOrder { ByteOrder(isSwapped: 1.littleEndian != 1) }
    @inline(__always) static var big: ByteOrder { ByteOrder(isSwapped: 1.bigEndian != 1) }

    /// - Precondition: The value lies within `bytes`.
    @inline(__always)
    func load<Value: FixedWidthInteger & BitwiseCopyable>(
        _ bytes: RawSpan,
        _ offset: Int,
        as _: Value.Type = Value.self
    )
        -> Value
    {
        precondition(offset >= 0 && bytes.byteCount &- offset >= MemoryLayout<Value>.size, "outside the bytes")
        // In bounds: checked above.
        let value = unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: Value.self)
        return isSwapped ? value.byteSwapped : value
    }
}

extension RawSpan {
    /// A big-endian integer.
    ///
    /// - Precondition: It lies within the span.
    @inline(__always)
    func big<Value: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as _: Value.Type = Value.self) -> Value {
        ByteOrder.big.load(self, offset)
    }

    @inline(__always)
    func byte(_ offset: Int) -> UInt8 { big(offset) }

    /// The bytes of a range, cut where the span ends.
    func array(_ range: Range<Int>) -> [UInt8] {
        let part = range.clamped(to: 0..<byteCount)
        return part.map { byte($0) }
    }
}
