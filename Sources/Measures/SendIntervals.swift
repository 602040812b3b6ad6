/// Which interval of send time a datagram belongs to: the one rule that both ends of a flow count by.
///
/// Units: nanoseconds of the sender's clock. Time before the beginning is warm-up.
@usableFromInline
struct SendIntervals: Sendable {
    let length: Int64
    /// The most intervals; what was sent later belongs to the last one.
    let limit: Int
    private(set) var begin: Int64?

    /// - Parameter begin: When measuring begins; `nil`: with the first datagram.
    init(begin: Int64?, length: Int64, limit: Int) {
        precondition(length > 0 && limit > 0, "an interval has a length")
        self.begin = begin
        self.length = length
        self.limit = limit
    }

    /// The interval of a send time, and when measuring began; no interval in the warm-up.
    mutating func place(_ sent: Int64) -> (interval: Int?, begin: Int64) {
        let begin = self.begin ?? sent
        self.begin = begin
        guard sent >= begin else { return (nil, begin) }
        // The difference of any two times, as damaged headers may have them.
        let place = UInt64(bitPattern: sent &- begin) / UInt64(length)
        return (Int(min(place, UInt64(limit - 1))), begin)
    }
}
