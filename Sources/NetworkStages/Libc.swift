package import PipelineCore

#if canImport(Glibc)
package import Glibc
#elseif canImport(Darwin)
package import Darwin
#endif

/// Calls of the C library under names that members of the same name do not hide.
package enum Libc {
    @discardableResult
    package static func close(_ descriptor: CInt) -> CInt {
        #if canImport(Glibc)
        Glibc.close(descriptor)
        #else
        Darwin.close(descriptor)
        #endif
    }

    static func open(_ path: String, _ flags: CInt, _ mode: mode_t = 0o644) -> CInt {
        #if canImport(Glibc)
        unsafe Glibc.open(path, flags, mode)
        #else
        unsafe Darwin.open(path, flags, mode)
        #endif
    }

    @unsafe
    package static func accept(
        _ descriptor: CInt,
        _ address: UnsafeMutablePointer<sockaddr>?,
        _ length: UnsafeMutablePointer<socklen_t>?
    ) -> CInt {
        #if canImport(Glibc)
        unsafe Glibc.accept(descriptor, address, length)
        #else
        unsafe Darwin.accept(descriptor, address, length)
        #endif
    }

    @unsafe
    package static func read(_ descriptor: CInt, _ bytes: UnsafeMutableRawPointer?, _ count: Int) -> Int {
        #if canImport(Glibc)
        unsafe Glibc.read(descriptor, bytes, count)
        #else
        unsafe Darwin.read(descriptor, bytes, count)
        #endif
    }

    @unsafe
    package static func send(_ descriptor: CInt, _ bytes: UnsafeRawPointer?, _ count: Int, _ flags: CInt) -> Int {
        #if canImport(Glibc)
        unsafe Glibc.send(descriptor, bytes, count, flags)
        #else
        unsafe Darwin.send(descriptor, bytes, count, flags)
        #endif
    }

    /// A whole text file.
    package static func text(of path: String, limit: Int) throws(StageError) -> String {
        let descriptor = open(path, O_RDONLY)
        guard descriptor >= 0 else {
            throw StageError(.invalidInput, "\(path): \(Socket.message(errno))", errno: errno)
        }
        defer { close(descriptor) }
        var text: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 65_536)
        while text.count <= limit {
            let got = unsafe part.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
            guard got > 0 else { break }
            text += part.prefix(got)
        }
        guard text.count <= limit else { throw StageError(.invalidInput, "\(path): more than \(limit) bytes") }
        return String(decoding: text, as: UTF8.self)
    }
}
