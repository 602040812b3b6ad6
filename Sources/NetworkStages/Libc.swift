#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Calls of the C library under names that members of the same name do not hide.
enum Libc {
    @discardableResult
    static func close(_ descriptor: CInt) -> CInt {
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
    static func accept(
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
    static func read(_ descriptor: CInt, _ bytes: UnsafeMutableRawPointer?, _ count: Int) -> Int {
        #if canImport(Glibc)
        unsafe Glibc.read(descriptor, bytes, count)
        #else
        unsafe Darwin.read(descriptor, bytes, count)
        #endif
    }

    @unsafe
    static func send(_ descriptor: CInt, _ bytes: UnsafeRawPointer?, _ count: Int, _ flags: CInt) -> Int {
        #if canImport(Glibc)
        unsafe Glibc.send(descriptor, bytes, count, flags)
        #else
        unsafe Darwin.send(descriptor, bytes, count, flags)
        #endif
    }
}
