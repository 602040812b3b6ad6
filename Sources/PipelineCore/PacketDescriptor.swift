/// What the pipeline knows about one thing that flows: a datagram, a chunk that is asked for, a piece of it that came.
///
/// One type at two grains, so that a scheduler is written once. In a packet pipeline all are ``Kind/data``. In a movie
/// pipeline the capture emits a ``Kind/request`` for each chunk, a scheduler gives it a ``path``, and the transport
/// answers with ``Kind/data`` pieces of at most 64 KiB and one ``Kind/done`` per chunk.
///
/// 88 bytes and trivially copyable. Stages read and write the public fields in place through
/// ``PacketBatch/descriptors``; where the bytes lie belongs to the batch, so a stage cannot forge or leak them.
@frozen
public struct PacketDescriptor: Sendable, BitwiseCopyable {
    /// What a descriptor means to the stage that receives it.
    @frozen
    public enum Kind: UInt8, Sendable, BitwiseCopyable {
        /// Bytes that go from one end to the other.
        case data
        /// A chunk to fetch: `sequence` is its index, `objectOffset` and `byteCount` its range.
        case request
        /// A second copy of a chunk that is being fetched, by another path. The first whole copy wins.
        case hedge
        /// The copy of a chunk on `path` is not wanted any more. Passes back-pressure by.
        case cancel
        /// A chunk has arrived whole: `departed` is when it was asked for, `firstByte` and `arrived` when it came.
        case done
        /// Bytes that were delivered and have turned out to be wrong; they will come again.
        case retract
    }

    /// Position in its stream, from 0, assigned by the capture: a datagram's number, or a chunk's index.
    public var sequence: UInt64
    /// Where the bytes belong in the object, in bytes from its start.
    public var objectOffset: UInt64
    /// When the capture produced it.
    public var captured: Timestamp
    /// When the transport handed it to the network (application clock); for a chunk, when it was requested.
    public var departed: Timestamp
    /// When the first byte of the chunk came; of use in ``Kind/done`` only.
    public var firstByte: Timestamp
    /// When the transport took it from the network (application clock).
    public var arrived: Timestamp
    /// When it stops being useful: its playout time. `.unset` if it never does, or nobody knows yet.
    public var deadline: Timestamp
    /// Bytes of payload. A packet may have a size and no bytes; see ``PacketBatch/payload(at:)``.
    public var byteCount: UInt32
    /// The stream, client or connection it belongs to.
    public var stream: UInt32
    /// The server or network path a scheduler chose for it: an index into ``StageContext/sources``.
    public var path: UInt16
    /// What it is.
    public var kind: Kind
    /// Whether some of its bytes had come before.
    public var isDuplicate: Bool
    /// Bytes of each datagram, if the packet is a *train*: equal datagrams back to back, of which the last may be shorter
    /// and whose numbers begin with `sequence` (a super-packet of GSO or GRO). 0: one datagram.
    public var segment: UInt16
    /// What the socket had dropped before this one came, as the kernel counts (SO_RXQ_OVFL); of use in a capture's
    /// ``Kind/data`` only. Super-packets count once.
    public var dropped: UInt32
    @usableFromInline package var slotOffset: UInt32
    @usableFromInline package var slot: UInt32

    @inlinable
    public init(
        _ kind: Kind = .data,
        sequence: UInt64,
        stream: UInt32 = 0,
        objectOffset: UInt64 = 0,
        byteCount: UInt32 = 0,
        captured: Timestamp = .unset
    ) {
        self.sequence = sequence
        self.objectOffset = objectOffset
        self.captured = captured
        self.departed = .unset
        self.firstByte = .unset
        self.arrived = .unset
        self.deadline = .unset
        self.byteCount = byteCount
        self.stream = stream
        self.path = 0
        self.kind = kind
        self.isDuplicate = false
        self.segment = 0
        self.dropped = 0
        self.slotOffset = 0
        self.slot = .max
    }

    /// Datagrams in it: one, but for a train.
    @inlinable public var datagramCount: Int {
        segment == 0 || byteCount == 0 ? 1 : (Int(byteCount) + Int(segment) - 1) / Int(segment)
    }

    /// The offset after the last byte.
    @inlinable public var objectEnd: UInt64 { objectOffset + UInt64(byteCount) }
}
