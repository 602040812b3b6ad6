/// The interarrival jitter estimate of one stream.
///
/// Units: nanoseconds in and out, where RFC 3550 uses ticks of the media clock.
/// Source: RFC 3550 §6.4.1 and the integer arithmetic of its appendix A.8: the estimate is kept times 16.
@frozen
public struct InterarrivalJitter: Sendable {
    @usableFromInline internal var scaled: Int64 = 0
    @inlinable public init() {}

    /// Takes the difference of two neighbours' transit times, D(i-1, i).
    @inlinable @inline(__always)
    public mutating func update(difference: Int64) {
        scaled &+= Int64(bitPattern: difference.magnitude) &- ((scaled &+ 8) &>> 4)
    }

    /// The estimate.
    @inlinable public var nanoseconds: Int64 { scaled >> 4 }
}
