import Crypto
public import PipelineCore

/// Cookies by which a client shows that an address is its own, without a server keeping anything for it.
///
/// The first 16 bytes of HMAC-SHA-256 over the epoch and the address, under a key that the server made for itself. A
/// cookie holds for the epoch in which it was made and the next.
public struct ServerCookies: Sendable {
    /// Nanoseconds.
    public static let epoch: Int64 = 60_000_000_000
    private let key: SymmetricKey

    public init() { key = SymmetricKey(size: .bits256) }

    /// A key of one's own, for tests.
    public init(key: [UInt8]) { self.key = SymmetricKey(data: key) }

    /// The cookie of an address, as the kernel has it.
    public func cookie(for address: [UInt8], at now: Timestamp) -> [UInt8] {
        make(address, now.nanoseconds / Self.epoch)
    }

    /// Whether `cookie` was made for `address` in this epoch or the last.
    public func isValid(_ cookie: [UInt8], for address: [UInt8], at now: Timestamp) -> Bool {
        let epoch = now.nanoseconds / Self.epoch
        return [epoch, epoch - 1].contains { isSame(make(address, $0), cookie) }
    }

    private func make(_ address: [UInt8], _ epoch: Int64) -> [UInt8] {
        var message: [UInt8] = []
        message.appendInteger(UInt64(bitPattern: epoch))
        message += address
        return Array(HMAC<SHA256>.authenticationCode(for: message, using: key).prefix(cookieByteCount))
    }

    /// In a time that does not tell where the difference is.
    private func isSame(_ a: [UInt8], _ b: [UInt8]) -> Bool {
        a.count == b.count && zip(a, b).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0
    }
}
