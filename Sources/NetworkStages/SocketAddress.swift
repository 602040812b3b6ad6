import CBatchIO
package import PipelineCore

#if canImport(Glibc)
package import Glibc
#elseif canImport(Darwin)
package import Darwin
#endif

/// An IPv4 or IPv6 address and port, as the kernel has it.
package struct SocketAddress: Hashable, Sendable, CustomStringConvertible {
    /// A `sockaddr_in` or `sockaddr_in6`.
    package let bytes: [UInt8]
    package let family: CInt

    /// The kernel's bytes; `nil` if they are of another family.
    package init?(bytes: [UInt8]) {
        guard bytes.count >= 8 else { return nil }
        let family = unsafe bytes.withUnsafeBytes { raw in
            unsafe raw.loadUnaligned(as: sockaddr.self).sa_family
        }
        guard CInt(family) == AF_INET || CInt(family) == AF_INET6 else { return nil }
        self.bytes = bytes
        self.family = CInt(family)
    }

    /// `host:port`, with brackets around an IPv6 host.
    package var description: String {
        var host = [CChar](repeating: 0, count: 64)
        var port = [CChar](repeating: 0, count: 16)
        let status = unsafe withPointer { pointer, length in
            unsafe getnameinfo(
                pointer,
                length,
                &host,
                64,
                &port,
                16,
                CInt(NI_NUMERICHOST | NI_NUMERICSERV)
            )
        }
        guard status == 0 else { return "?" }
        let (name, number) = (Self.text(host), Self.text(port))
        return family == AF_INET6 ? "[\(name)]:\(number)" : "\(name):\(number)"
    }

    private static func text(_ characters: [CChar]) -> String {
        String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// As a tap on the wire looks for it.
    func socketEntry(_ transport: String) -> SocketBoard.Entry? {
        guard let (host, port) = Self.split(description), let number = UInt16(port) else { return nil }
        return SocketBoard.Entry(transport: transport, address: host, port: number)
    }

    /// Whether it is of this machine alone.
    package var isLoopback: Bool {
        family == AF_INET
            ? bytes[4] == 127
            : bytes.count >= 24 && bytes[8..<23].allSatisfy { $0 == 0 } && bytes[23] == 1
    }

    package func withPointer<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        unsafe bytes.withUnsafeBytes { raw in
            unsafe raw.withMemoryRebound(to: sockaddr.self) { unsafe body($0.baseAddress!, socklen_t(bytes.count)) }
        }
    }

    /// Splits `host:port` or `[host]:port`.
    package static func split(_ text: String) -> (host: String, port: String)? {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        var host = String(text[..<colon])
        let port = String(text[text.index(after: colon)...])
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = String(host.dropFirst().dropLast())
        } else if host.contains(":") {
            return nil
        }
        guard let number = UInt32(port), number <= 65_535 else { return nil }
        return (host, port)
    }

    /// The addresses of `host:port`, the system's preference first. Blocks if the host is a name.
    package static func resolve(_ text: String, stream: Bool, passive: Bool) throws(StageError) -> [SocketAddress] {
        guard let (host, port) = split(text) else {
            throw StageError(.invalidInput, "expected HOST:PORT or [HOST]:PORT, found '\(text)'")
        }
        var hints = unsafe addrinfo()
        unsafe hints.ai_socktype = stream ? CInt(SOCK_STREAM.rawValue) : CInt(SOCK_DGRAM.rawValue)
        unsafe hints.ai_flags = passive ? AI_PASSIVE : 0
        var list: UnsafeMutablePointer<addrinfo>?
        let status = unsafe getaddrinfo(host.isEmpty ? nil : host, port, &hints, &list)
        defer { if let list = unsafe list { unsafe freeaddrinfo(list) } }
        guard status == 0 else {
            throw StageError(.invalidInput, "'\(host)' has no address: \(unsafe String(cString: gai_strerror(status)))")
        }
        var addresses: [SocketAddress] = []
        var next = unsafe list
        while let one = unsafe next {
            let info = unsafe one.pointee
            if let pointer = unsafe info.ai_addr {
                let raw = unsafe UnsafeRawBufferPointer(start: pointer, count: Int(info.ai_addrlen))
                if let address = SocketAddress(bytes: unsafe Array(raw)) { addresses.append(address) }
            }
            unsafe next = info.ai_next
        }
        guard !addresses.isEmpty else { throw StageError(.invalidInput, "'\(host)' has no IPv4 or IPv6 address") }
        return addresses
    }
}

/// System calls on sockets, with what they were about in their errors.
package enum Socket {
    /// A listening TCP socket or a bound UDP socket, not blocking.
    package static func bound(
        to text: String,
        stream: Bool,
        sharesPort: Bool = false
    ) throws(StageError) -> (descriptor: CInt, address: SocketAddress) {
        let address = try SocketAddress.resolve(text, stream: stream, passive: true)[0]
        let descriptor = try open(address.family, stream: stream)
        var on: CInt = 1
        if stream {
            unsafe setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<CInt>.size))
        }
        if address.family == AF_INET6 {
            // One family a socket: `[::]` beside `0.0.0.0` on one port is two stages, not a conflict.
            unsafe setsockopt(descriptor, CInt(IPPROTO_IPV6), IPV6_V6ONLY, &on, socklen_t(MemoryLayout<CInt>.size))
        }
        if sharesPort { cbatchio_share_port(descriptor) }
        let isBound = unsafe address.withPointer { unsafe bind(descriptor, $0, $1) } == 0
        guard isBound, !stream || listen(descriptor, 512) == 0 else {
            let number = errno
            close(descriptor)
            throw StageError(.systemCall, "cannot listen at \(address): \(message(number))", errno: number)
        }
        return (descriptor, localAddress(of: descriptor) ?? address)
    }

    package static func open(_ family: CInt, stream: Bool) throws(StageError) -> CInt {
        let type = CInt((stream ? SOCK_STREAM : SOCK_DGRAM).rawValue)
        let descriptor = socket(family, type, 0)
        guard descriptor >= 0 else {
            throw StageError(.systemCall, "cannot open a socket: \(message(errno))", errno: errno)
        }
        prepare(descriptor)
        return descriptor
    }

    /// Not blocking, closed by exec, no delay.
    package static func prepare(_ descriptor: CInt) {
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        var on: CInt = 1
        unsafe setsockopt(descriptor, CInt(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<CInt>.size))
    }

    package static func localAddress(of descriptor: CInt) -> SocketAddress? {
        var bytes = [UInt8](repeating: 0, count: 128)
        var length = socklen_t(128)
        let status = unsafe bytes.withUnsafeMutableBytes { raw in
            unsafe raw.withMemoryRebound(to: sockaddr.self) { unsafe getsockname(descriptor, $0.baseAddress!, &length) }
        }
        return status == 0 ? SocketAddress(bytes: Array(bytes.prefix(Int(length)))) : nil
    }

    /// What a connect in progress has come to: 0, or an errno.
    package static func pendingError(of descriptor: CInt) -> CInt {
        var error: CInt = 0
        var length = socklen_t(MemoryLayout<CInt>.size)
        return unsafe getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno
    }

    /// Another descriptor of the same socket.
    package static func duplicate(_ descriptor: CInt) -> CInt { fcntl(descriptor, F_DUPFD_CLOEXEC, 0) }

    /// Blocks the calling thread.
    package static func pause(nanoseconds: Int64) {
        _ = poll(nil, 0, CInt(clamping: (nanoseconds + 999_999) / 1_000_000))
    }

    package static func message(_ number: CInt) -> String { unsafe String(cString: strerror(number)) }

    package static func realtimeNanoseconds() -> UInt64 {
        var time = timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
