public import Measures

/// The header of a datagram of a rate test, as its hot loops write and read it: ``WireHeader``'s layout, word by word.
///
/// A test's datagram is a DATA whose object offset is 0. Only its sequence and send time change from one to the next, so
/// the sender writes the rest once.
@frozen
public enum TestDatagram {
    /// The first eight bytes, as a number: magic, version, type, flags and flow id.
    @inlinable
    public static func firstWord(flow: UInt32) -> UInt64 {
        UInt64(WireHeader.magic) << 48 | UInt64(WireHeader.version << 4 | WireType.data.rawValue) << 40 | UInt64(flow)
    }

    /// Writes a header.
    ///
    /// - Precondition: 32 bytes are there.
    @unsafe @inlinable @inline(__always)
    public static func store(
        into bytes: UnsafeMutableRawPointer,
        firstWord: UInt64,
        sequence: UInt64,
        sendTime: UInt64,
        byteCount: Int
    ) {
        unsafe bytes.storeBytes(of: firstWord.bigEndian, as: UInt64.self)
        unsafe bytes.storeBytes(of: sequence.bigEndian, toByteOffset: 8, as: UInt64.self)
        unsafe bytes.storeBytes(of: sendTime.bigEndian, toByteOffset: 16, as: UInt64.self)
        let tail = UInt64(truncatingIfNeeded: byteCount &- WireHeader.byteCount)
        unsafe bytes.storeBytes(of: tail.bigEndian, toByteOffset: 24, as: UInt64.self)
    }

    /// Reads datagrams that lie back to back and takes each into account, as long as they are of one flow and whole.
    ///
    /// - Parameters:
    ///   - bytes: One datagram, or a super-packet.
    ///   - segment: Bytes of each datagram of a super-packet; the last may be shorter.
    ///   - offset: Where to begin.
    ///   - shift: What is added to send times to bring them onto the receiver's clock.
    /// - Returns: The offset of the first datagram that is not of the flow or not whole; the number of bytes if all are.
    @inlinable @inline(__always)
    public static func receive(
        _ bytes: RawSpan,
        segment: Int,
        from offset: Int,
        firstWord: UInt64,
        arrived: Int64,
        shift: Int64,
        into account: inout DatagramAccount
    ) -> Int {
        let wanted = firstWord.bigEndian
        let end = bytes.byteCount
        guard segment >= WireHeader.byteCount, offset >= 0, offset <= end else { return offset }
        return unsafe bytes.withUnsafeBytes { raw in
            guard let base = raw.baseAddress else { return offset }
            var offset = offset
            // Whole datagrams first: their length is known, so their headers' last word is too.
            let tail = UInt64(truncatingIfNeeded: segment &- WireHeader.byteCount).bigEndian
            while end &- offset >= segment {
                // In bounds: a segment, and so a header, lies behind `offset`.
                let header = unsafe base + offset
                guard unsafe header.loadUnaligned(as: UInt64.self) == wanted,
                    unsafe header.loadUnaligned(fromByteOffset: 24, as: UInt64.self) == tail
                else { return offset }
                unsafe take(header, byteCount: segment, arrived, shift, &account)
                offset &+= segment
                // A train's datagrams have one send time: as long as it stays, so do delay, interval and bucket.
                let sent = unsafe header.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
                let bucket = account.delayBucket
                while end &- offset >= segment {
                    let header = unsafe base + offset
                    guard unsafe header.loadUnaligned(fromByteOffset: 16, as: UInt64.self) == sent,
                        unsafe header.loadUnaligned(as: UInt64.self) == wanted,
                        unsafe header.loadUnaligned(fromByteOffset: 24, as: UInt64.self) == tail
                    else { break }
                    let sequence = unsafe header.loadUnaligned(fromByteOffset: 8, as: UInt64.self).byteSwapped
                    account.receiveAgain(sequence: sequence, byteCount: segment, bucket: bucket)
                    offset &+= segment
                }
            }
            let left = end &- offset
            guard left >= WireHeader.byteCount else { return offset }
            let header = unsafe base + offset
            guard unsafe header.loadUnaligned(as: UInt64.self) == wanted,
                unsafe header.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
                    == UInt64(truncatingIfNeeded: left &- WireHeader.byteCount).bigEndian
            else { return offset }
            unsafe take(header, byteCount: left, arrived, shift, &account)
            return end
        }
    }

    @unsafe @inlinable @inline(__always)
    internal static func take(
        _ header: UnsafeRawPointer,
        byteCount: Int,
        _ arrived: Int64,
        _ shift: Int64,
        _ account: inout DatagramAccount
    ) {
        let sequence = unsafe header.loadUnaligned(fromByteOffset: 8, as: UInt64.self).byteSwapped
        let sent = unsafe header.loadUnaligned(fromByteOffset: 16, as: UInt64.self).byteSwapped
        account.receive(
            sequence: sequence,
            sent: Int64(bitPattern: sent) &+ shift,
            arrived: arrived,
            byteCount: byteCount
        )
    }
}
