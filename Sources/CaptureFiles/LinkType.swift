/// Numbers of the registry of link-layer header types that are decoded.
public enum LinkType {
    public static let null: UInt16 = 0
    public static let ethernet: UInt16 = 1
    public static let rawBSD: UInt16 = 12
    public static let rawOpenBSD: UInt16 = 14
    public static let raw: UInt16 = 101
    public static let loop: UInt16 = 108
    public static let linuxSLL: UInt16 = 113
    public static let ipv4: UInt16 = 228
    public static let ipv6: UInt16 = 229
    public static let linuxSLL2: UInt16 = 276
}

/// An IP address, of either version.
public struct NetworkAddress: Hashable, Sendable, CustomStringConvertible {
    public var high: UInt64
    public var low: UInt64
    public var isIPv6: Bool

    public init(ipv4: UInt32) {
        high = 0
        low = UInt64(ipv4)
        isIPv6 = false
    }
    public init(ipv6 high: UInt64, _ low: UInt64) {
        self.high = high
        self.low = low
        isIPv6 = true
    }

    /// Dotted quad, or the text of RFC 5952.
    public var description: String {
        guard isIPv6 else { return (0..<4).map { String(low >> (24 - 8 * UInt64($0)) & 0xFF) }.joined(separator: ".") }
        let groups = (0..<8).map { UInt16(truncatingIfNeeded: ($0 < 4 ? high : low) >> (48 - 16 * UInt64($0 % 4))) }
        // The longest run of zeros, of two groups or more, is left out; the first of equal ones.
        var (best, length) = (0, 1)
        var place = 0
        while place < 8 {
            let end = groups[place...].firstIndex { $0 != 0 } ?? 8
            if end - place > length { (best, length) = (place, end - place) }
            place = max(end, place + 1)
        }
        func text(_ part: ArraySlice<UInt16>) -> String { part.map { String($0, radix: 16) }.joined(separator: ":") }
        guard length > 1 else { return text(groups[...]) }
        return text(groups[..<best]) + "::" + text(groups[(best + length)...])
    }
}
