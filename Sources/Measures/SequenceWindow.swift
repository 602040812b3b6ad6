/// What a datagram is that has just arrived, by its sequence number alone.
@frozen
public enum SequenceArrival: UInt8, Sendable {
    /// Its first copy, and none with a larger number has come before.
    case inOrder
    /// Its first copy, after one with a larger number (RFC 4737).
    case reordered
    /// Another copy of one that came before (RFC 5560).
    case duplicate
    /// So far behind the largest number that its copies cannot be told apart: lost, by the waiting time of RFC 7680.
    case late
}

/// Tells first copies, second copies and reordered datagrams of one flow apart, exactly.
///
/// A bitmap of the last 65,536 sequence numbers up to the largest seen. What is older is ``SequenceArrival/late``: the
/// waiting time (RFC 7680) is stated in datagrams, not in seconds, so that the answer depends on nothing but the numbers.
/// Source: RFC 4737 §3.3 (NextExp), §4.2.2 (reordering extent).
@frozen
public struct SequenceWindow: ~Copyable {
    /// Sequence numbers in the window.
    public static let span: UInt64 = 65_536
    @usableFromInline internal var bits = InlineArray<1_024, UInt64>(repeating: 0)
    /// The number that continues a run of arrivals without gap or disorder; `.max`: none is going on. While one is, it is
    /// the only thing that an arrival changes, with its bit: the other two lie `runOffset` and nothing behind it.
    @usableFromInline internal var expected = UInt64.max
    private var storedNext: UInt64 = 0
    private var storedArrivals: UInt64 = 0
    private var runOffset: UInt64 = 0

    /// One more than the largest sequence number that has come (NextExp).
    public var nextExpected: UInt64 { expected == .max ? storedNext : expected }
    /// Datagrams that have arrived, of every class.
    public var arrivalCount: UInt64 { expected == .max ? storedArrivals : expected &- runOffset }

    /// Runs of arrivals that were in order and without a gap: where each began. Enough to find the first datagram that
    /// came before a reordered one and has a larger number, without a word for every arrival.
    @usableFromInline internal struct Run {
        @usableFromInline var sequence: UInt64 = 0
        @usableFromInline var arrival: UInt64 = 0
        @usableFromInline init() {}
    }
    @usableFromInline internal var runs = InlineArray<1_024, Run>(repeating: Run())
    @usableFromInline internal var runCount: UInt64 = 0
    /// Of the last reordered datagram: how many arrivals lie between it and the first larger one (RFC 4737 §4.2.2).
    public var lastExtent: UInt64 = 0

    /// Arrivals that were no first copies: duplicates, and what came late.
    public private(set) var copyCount: UInt64 = 0
    /// First copies that came after a larger number.
    public private(set) var reorderedCount: UInt64 = 0
    /// What the last datagram was.
    public private(set) var lastArrival = SequenceArrival.inOrder

    public init() {}

    /// Takes note of a datagram.
    @inlinable @inline(__always)
    public mutating func note(_ sequence: UInt64) -> SequenceArrival {
        // No sender counts to 2⁶³: the highest bit is never right, and so `.max` is never a number.
        let sequence = sequence & UInt64.max >> 1
        guard sequence == expected else { return noteSlowly(sequence) }
        // In bounds: the window has 1,024 words.
        unsafe bits[unchecked: Int(truncatingIfNeeded: sequence &>> 6) & 1_023] |= 1 &<< (sequence & 63)
        expected = sequence &+ 1
        return .inOrder
    }

    @usableFromInline
    internal mutating func noteSlowly(_ sequence: UInt64) -> SequenceArrival {
        storedNext = nextExpected
        storedArrivals = arrivalCount
        expected = .max
        lastArrival = classify(sequence)
        if lastArrival == .duplicate || lastArrival == .late { copyCount &+= 1 }
        if lastArrival == .reordered { reorderedCount &+= 1 }
        storedArrivals &+= 1
        if lastArrival == .inOrder {
            expected = storedNext
            runOffset = storedNext &- storedArrivals
        }
        return lastArrival
    }

    private mutating func classify(_ sequence: UInt64) -> SequenceArrival {
        // No sender counts so far: a damaged number.
        guard sequence < 1 << 62 else { return .late }
        if sequence >= storedNext {
            clear(from: storedNext, through: sequence)
            runs[Int(runCount % 1_024)].sequence = sequence
            runs[Int(runCount % 1_024)].arrival = storedArrivals
            runCount += 1
            set(sequence)
            storedNext = sequence &+ 1
            return .inOrder
        }
        if storedNext - sequence > Self.span { return .late }
        let word = Int(truncatingIfNeeded: sequence >> 6) & 1_023
        if bits[word] & (1 << (sequence & 63)) != 0 { return .duplicate }
        set(sequence)
        lastExtent = storedArrivals - firstLarger(than: sequence)
        return .reordered
    }

    private mutating func set(_ sequence: UInt64) {
        bits[Int(truncatingIfNeeded: sequence >> 6) & 1_023] |= 1 << (sequence & 63)
    }

    /// Empties the places of the numbers that enter the window.
    private mutating func clear(from first: UInt64, through last: UInt64) {
        if last - first >= Self.span {
            for index in bits.indices { bits[index] = 0 }
            return
        }
        var sequence = first
        while sequence <= last {
            if sequence & 63 == 0, last - sequence >= 63 {
                bits[Int(truncatingIfNeeded: sequence >> 6) & 1_023] = 0
                sequence += 64
            } else {
                bits[Int(truncatingIfNeeded: sequence >> 6) & 1_023] &= ~(1 << (sequence & 63))
                sequence += 1
            }
        }
    }

    /// The number of the first arrival whose sequence number is larger: it began or lies in a run of new maxima.
    private func firstLarger(than sequence: UInt64) -> UInt64 {
        let oldest = runCount > 1_024 ? runCount - 1_024 : 0
        var low = oldest
        var high = runCount
        // The last run that began at or below `sequence`.
        while low < high {
            let middle = (low + high) / 2
            if runs[Int(middle % 1_024)].sequence > sequence { high = middle } else { low = middle + 1 }
        }
        // Its numbers have no gap; `sequence` is in none of them, so the next run holds the first larger one.
        let run = low < runCount ? runs[Int(low % 1_024)] : runs[Int((runCount - 1) % 1_024)]
        return run.arrival
    }
}
