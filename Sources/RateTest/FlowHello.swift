import Delivery
import PipelineCore

/// The datagram by which a client opens a flow of a test, and the server's answer to the first one.
///
/// A HELLO of the wire format whose payload is the session's token (16 bytes), a cookie (16 bytes, zero at first) and
/// padding up to the size of the test's datagrams, so that the path is shown to carry them. A server answers one without a
/// valid cookie by a COOKIE and nothing else: 48 bytes for at least 64.
public struct FlowHello: Hashable, Sendable {
    public var flow: UInt32
    public var token: [UInt8]
    public var cookie: [UInt8]

    public static let tokenByteCount = 16
    public static let leastByteCount = WireHeader.byteCount + 32

    public init(flow: UInt32, token: [UInt8], cookie: [UInt8] = Array(repeating: 0, count: 16)) {
        self.flow = flow
        self.token = token
        self.cookie = cookie
    }

    /// Reads a datagram; `nil` if it is none.
    public init?(_ datagram: RawSpan) {
        guard let header = try? WireHeader.read(datagram), header.type == .hello,
            Int(header.payloadByteCount) == datagram.byteCount - WireHeader.byteCount,
            datagram.byteCount >= Self.leastByteCount
        else { return nil }
        flow = header.flow
        let payload = datagram.extracting(WireHeader.byteCount..<Self.leastByteCount)
        let bytes = (0..<32).map { payload.unsafeByte(at: $0) }
        token = Array(bytes[..<16])
        cookie = Array(bytes[16...])
    }

    /// The datagram, padded.
    public func datagram(byteCount: Int, sendTime: UInt64) -> [UInt8] {
        let length = max(byteCount, Self.leastByteCount)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(length)
        WireHeader(
            .hello,
            flow: flow,
            sequence: 0,
            sendTime: sendTime,
            payloadByteCount: UInt16(length - WireHeader.byteCount)
        ).append(to: &bytes)
        bytes += token + cookie
        bytes += Array(repeating: 0, count: length - bytes.count)
        return bytes
    }

    /// The answer to a HELLO without a valid cookie.
    public static func cookieDatagram(_ cookie: [UInt8], flow: UInt32, sendTime: UInt64) -> [UInt8] {
        var bytes: [UInt8] = []
        WireHeader(.cookie, flow: flow, sequence: 0, sendTime: sendTime, payloadByteCount: UInt16(cookie.count))
            .append(to: &bytes)
        return bytes + cookie
    }

    /// The cookie that a datagram brings for a flow; `nil` if it brings none.
    public static func cookie(in datagram: RawSpan, for flow: UInt32) -> [UInt8]? {
        guard let header = try? WireHeader.read(datagram), header.type == .cookie, header.flow == flow,
            header.payloadByteCount == 16, datagram.byteCount == WireHeader.byteCount + 16
        else { return nil }
        return (0..<16).map { datagram.extracting(WireHeader.byteCount...).unsafeByte(at: $0) }
    }
}

extension RawSpan {
    /// A byte; traps outside.
    fileprivate func unsafeByte(at index: Int) -> UInt8 {
        precondition(index >= 0 && index < byteCount, "outside the datagram")
        // In bounds: checked above.
        return unsafe unsafeLoad(fromByteOffset: index, as: UInt8.self)
    }
}
