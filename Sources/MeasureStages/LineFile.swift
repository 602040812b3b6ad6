public import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// A text file that grows by whole lines, so that a run killed at any moment leaves it readable to the last full line.
///
/// Lines are handed to the kernel at every ``flush()``; call it once a batch. After the first failure nothing more is
/// written, and ``close()`` throws it.
public final class LineFile {
    public let path: String
    private let descriptor: CInt
    private var pending: [UInt8] = []
    private var failure: StageError?

    /// Creates the file, or empties it, and writes a first line.
    public init(_ path: String, header: String? = nil) throws(StageError) {
        self.path = path
        descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw StageError(.outputFailed, "cannot create '\(path)'", errno: errno) }
        if let header { append(header) }
        flush()
    }

    deinit { close(descriptor) }

    /// Adds one line; `line` has no line end.
    public func append(_ line: String) {
        pending.append(contentsOf: line.utf8)
        pending.append(UInt8(ascii: "\n"))
        if pending.count > 1 << 20 { flush() }
    }

    /// Hands what was appended to the kernel.
    public func flush() {
        guard failure == nil else { return pending.removeAll() }
        var written = 0
        while written < pending.count {
            let count = unsafe pending.withUnsafeBytes {
                unsafe write(descriptor, $0.baseAddress! + written, $0.count - written)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                failure = StageError(.outputFailed, "cannot write '\(path)'", errno: errno)
                break
            }
            written += count
        }
        pending.removeAll(keepingCapacity: true)
    }

    /// Writes what is left, and throws what went wrong since the file was opened, if anything did.
    public func finish() throws(StageError) {
        flush()
        if let failure { throw failure }
    }
}

/// A field of a CSV line (RFC 4180): quoted if it has a comma, a quote or a line end in it.
public func csvField(_ text: String) -> String {
    let needsQuotes = text.utf8.contains { $0 == UInt8(ascii: ",") || $0 == UInt8(ascii: "\"") || $0 < 0x20 }
    return needsQuotes
        ? "\"" + text.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\"" : text
}
