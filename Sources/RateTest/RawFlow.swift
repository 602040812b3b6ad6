import CBatchIO
import NetworkStages
public import PipelineCore
import PipelineRuntime

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// One end of a raw flow without a control connection: what `tools/bench/udp` compares with plain C.
public enum RawFlow {
    /// Opens a socket that is connected to `address`.
    public static func connected(to address: String) throws(StageError) -> CInt {
        let address = try SocketAddress.resolve(address, stream: false, passive: false)[0]
        let descriptor = try Socket.open(address.family, stream: false)
        guard unsafe address.withPointer({ unsafe connect(descriptor, $0, $1) }) == 0 else {
            let number = errno
            Libc.close(descriptor)
            throw StageError(.systemCall, "cannot reach \(address): \(Socket.message(number))", errno: number)
        }
        return descriptor
    }

    /// Opens a socket at `address`; its port is told to `announce`. Waits for a datagram and connects to where it is from.
    ///
    /// - Returns: `nil` if none came within the time.
    public static func accepted(
        at address: String,
        receiveBuffer: ByteCount,
        gro: Bool,
        within limit: Duration,
        announce: (String) -> Void
    ) throws(StageError) -> CInt? {
        let (descriptor, bound) = try Socket.bound(to: address, stream: false)
        _ = cbatchio_set_receive_buffer(descriptor, CInt(clamping: receiveBuffer.bytes))
        if gro { _ = cbatchio_configure(descriptor, bound.family, UInt32(CBATCHIO_GRO)) }
        announce("\(bound)")
        var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        let milliseconds = Timestamp.zero.advanced(by: limit).nanoseconds / 1_000_000
        guard unsafe poll(&request, 1, CInt(clamping: milliseconds)) > 0 else {
            Libc.close(descriptor)
            return nil
        }
        var peer = [UInt8](repeating: 0, count: 128)
        var length = socklen_t(peer.count)
        var byte: UInt8 = 0
        let status = unsafe peer.withUnsafeMutableBytes { raw in
            unsafe raw.withMemoryRebound(to: sockaddr.self) {
                unsafe recvfrom(descriptor, &byte, 1, CInt(MSG_PEEK), $0.baseAddress!, &length)
            }
        }
        if status >= 0, let from = SocketAddress(bytes: Array(peer.prefix(Int(length)))) {
            _ = unsafe from.withPointer { unsafe connect(descriptor, $0, $1) }
        }
        return descriptor
    }
}
