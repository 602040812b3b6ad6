import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// A file of records that grows through a buffer of its own; appending allocates nothing.
///
/// After the first failure nothing more is written, and ``finish()`` throws it.
@safe
final class BinaryFile {
    let path: String
    private static let capacity = 1 << 18
    private let descriptor: CInt
    private let buffer: UnsafeMutableRawBufferPointer
    private var used = 0
    private var failure: StageError?

    /// Creates the file, or empties it.
    init(_ path: String) throws(StageError) {
        self.path = path
        descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw StageError(.outputFailed, "cannot create '\(path)'", errno: errno) }
        unsafe buffer = .allocate(byteCount: Self.capacity, alignment: 8)
    }

    deinit {
        close(descriptor)
        unsafe buffer.deallocate()
    }

    /// Makes room for a record that is appended in parts.
    func reserve(_ byteCount: Int) { if Self.capacity - used < byteCount { flush() } }

    /// Appends an integer, little-endian.
    ///
    /// - Precondition: There is room: see ``reserve(_:)``.
    func append<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value) {
        precondition(Self.capacity - used >= MemoryLayout<Value>.size, "no room was made")
        unsafe buffer.storeBytes(of: value.littleEndian, toByteOffset: used, as: Value.self)
        used += MemoryLayout<Value>.size
    }

    private func flush() {
        var written = 0
        while written < used, failure == nil {
            let count = unsafe write(descriptor, buffer.baseAddress! + written, used - written)
            if count < 0, errno == EINTR { continue }
            if count <= 0 {
                failure = StageError(.outputFailed, "cannot write '\(path)'", errno: errno)
            } else {
                written += count
            }
        }
        used = 0
    }

    /// Writes what is left, and throws what went wrong since the file was opened, if anything did.
    func finish() throws(StageError) {
        flush()
        if let failure { throw failure }
    }
}
