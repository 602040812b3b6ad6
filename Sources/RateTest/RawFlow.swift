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

    /// Opens a socket at `address`.
    ///
    /// - Returns: It, and where it is bound.
    public static func bound(
        to address: String,
        receiveBuffer: ByteCount
    ) throws(StageError) -> (socket: CInt, address: String) {
        let (descriptor, bound) = try Socket.bound(to: address, stream: false)
        _ = cbatchio_set_receive_buffer(descriptor, CInt(clamping: receiveBuffer.bytes))
        return (descriptor, "\(bound)")
    }
}
