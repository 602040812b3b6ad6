/// What is known of one datagram: 48 bytes. Times in nanoseconds of one clock; ``unknown`` where there is none.
public struct JoinedDatagram: Sendable {
    public static let unknown = Int64.min

    /// When the application was about to send it.
    public internal(set) var before = unknown
    /// When it first passed the tap at the sender, and at the receiver.
    public internal(set) var wireOut = unknown
    public internal(set) var wireIn = unknown
    /// The kernel's receive stamp.
    public internal(set) var kernel = unknown
    var afterDelta: UInt32 = 0
    var readDelta: UInt32 = 0
    /// What the socket had dropped before it, as the kernel counts; meaningful with ``Facts/hasDropCount``.
    public internal(set) var dropped: UInt32 = 0
    /// Bytes of UDP payload, by who first told.
    public internal(set) var length: UInt16 = 0
    public internal(set) var facts = Facts()

    /// Who knows of it, and what is odd.
    public struct Facts: OptionSet, Sendable {
        public let rawValue: UInt16
        public init(rawValue: UInt16) { self.rawValue = rawValue }
        public static let sent = Facts(rawValue: 1)
        public static let wireOut = Facts(rawValue: 2)
        public static let wireIn = Facts(rawValue: 4)
        public static let received = Facts(rawValue: 8)
        /// More than once in the send log, at a tap, in the receive log.
        public static let sentAgain = Facts(rawValue: 16)
        public static let wireOutAgain = Facts(rawValue: 32)
        public static let wireInAgain = Facts(rawValue: 64)
        public static let receivedAgain = Facts(rawValue: 128)
        /// Two of them tell different lengths.
        public static let lengthsDiffer = Facts(rawValue: 256)
        /// Part of a super-packet at a tap: its wire time is that of the whole.
        public static let superPacket = Facts(rawValue: 512)
        public static let hasDropCount = Facts(rawValue: 1_024)
        /// Its number was inferred from the first of its super-packet, whose own header was not captured.
        public static let inferred = Facts(rawValue: 2_048)
        /// The application had it before the kernel's stamp.
        public static let readBeforeStamp = Facts(rawValue: 4_096)
    }

    /// When the call that sent it had returned; `nil` if nobody says.
    public var after: Int64? { afterDelta == 0 ? nil : before &+ Int64(afterDelta) }
    /// When the application had it.
    public var read: Int64? { facts.contains(.received) ? kernel &+ Int64(readDelta) : nil }
}

/// Brings together what logs and taps say of the same datagrams, by flow and sequence.
///
/// One pass over each source, in any order; memory is 48 bytes for each sequence of a flow. A flow whose sequences are
/// further apart than four times their number goes into a hash table, so that no log can make it ask for more.
public struct DatagramJoin: Sendable {
    /// Where a datagram was seen on the wire.
    public enum Side: Sendable { case out, `in` }

    /// The datagrams of one flow.
    public struct Flow: Sendable {
        public let id: UInt32
        /// The sequence of the first of ``dense``.
        public fileprivate(set) var base: UInt64
        fileprivate var dense: [JoinedDatagram] = []
        fileprivate var sparse: [UInt64: JoinedDatagram] = [:]

        /// Calls `each` for every sequence that somebody has seen, in order.
        public func forEach(_ each: (UInt64, JoinedDatagram) -> Void) {
            for index in dense.indices where !dense[index].facts.isEmpty { each(base + UInt64(index), dense[index]) }
            for sequence in sparse.keys.sorted() { each(sequence, sparse[sequence] ?? JoinedDatagram()) }
        }

        /// Sequences with an entry.
        public var count: Int { dense.count { !$0.facts.isEmpty } + sparse.count }
        /// Bytes that the entries take.
        public var byteCount: Int { dense.capacity * MemoryLayout<JoinedDatagram>.stride + sparse.capacity * 64 }

        public subscript(sequence: UInt64) -> JoinedDatagram? {
            if sequence >= base, sequence - base < UInt64(dense.count) {
                let entry = dense[Int(sequence - base)]
                return entry.facts.isEmpty ? nil : entry
            }
            return sparse[sequence]
        }

        @inline(__always)
        fileprivate mutating func update(_ sequence: UInt64, _ body: (inout JoinedDatagram) -> Void) {
            let index = sequence &- base
            if sequence >= base, index < UInt64(dense.count) { return body(&dense[Int(index)]) }
            insert(sequence, body)
        }

        /// Entries, not the gaps between them: room is given for what is there.
        fileprivate var inserted: UInt64 = 0

        @inline(never)
        private mutating func insert(_ sequence: UInt64, _ body: (inout JoinedDatagram) -> Void) {
            if dense.isEmpty, sparse.isEmpty { base = sequence }
            inserted += 1
            let have = UInt64(dense.count)
            let room = inserted * 4 + 64
            if sequence >= base, sequence - base < room || (sequence - base == have && sparse.isEmpty) {
                while UInt64(dense.count) <= sequence - base {
                    let key = base + UInt64(dense.count)
                    dense.append(
                        sparse.isEmpty ? JoinedDatagram() : sparse.removeValue(forKey: key) ?? JoinedDatagram()
                    )
                }
                return body(&dense[Int(sequence - base)])
            }
            if sequence < base, have < room, base - sequence <= room - have {
                var early: [JoinedDatagram] = []
                for key in sequence..<base { early.append(sparse.removeValue(forKey: key) ?? JoinedDatagram()) }
                dense.insert(contentsOf: early, at: 0)
                base = sequence
                return body(&dense[0])
            }
            body(&sparse[sequence, default: JoinedDatagram()])
        }
    }

    public private(set) var flows: [Flow] = []
    private var indices: [UInt32: Int] = [:]
    private var lastID: UInt32 = 0
    private var lastIndex = -1
    /// The most flows that are told apart; what is of others is counted.
    public static let mostFlows = 65_536
    public private(set) var ignoredCount = 0

    public init() {}

    /// Makes room for as many datagrams of a flow.
    public mutating func reserve(_ count: Int, flow id: UInt32) {
        if let index = place(of: id) { flows[index].dense.reserveCapacity(count) }
    }

    @inline(__always)
    private mutating func place(of id: UInt32) -> Int? {
        if id == lastID, lastIndex >= 0 { return lastIndex }
        return lookUp(id)
    }

    @inline(never)
    private mutating func lookUp(_ id: UInt32) -> Int? {
        if let index = indices[id] {
            (lastID, lastIndex) = (id, index)
            return index
        }
        guard flows.count < Self.mostFlows else {
            ignoredCount += 1
            return nil
        }
        flows.append(Flow(id: id, base: 0))
        indices[id] = flows.count - 1
        (lastID, lastIndex) = (id, flows.count - 1)
        return flows.count - 1
    }

    /// The send log's word.
    ///
    /// - Parameter after: When the call had returned; 0 if that is not known.
    public mutating func addSent(flow: UInt32, sequence: UInt64, length: Int, before: Int64, after: Int64) {
        guard let index = place(of: flow) else { return }
        flows[index].update(sequence) { entry in
            guard !entry.facts.contains(.sent) else { return entry.facts.formUnion(.sentAgain) }
            entry.facts.formUnion(.sent)
            entry.before = before
            entry.afterDelta = after > before ? UInt32(clamping: difference(after, before)) : 0
            Self.note(length, &entry)
        }
    }

    /// A tap's word.
    public mutating func addWire(
        _ side: Side,
        flow: UInt32,
        sequence: UInt64,
        length: Int,
        time: Int64,
        isSuperPacket: Bool = false,
        isInferred: Bool = false
    ) {
        guard let index = place(of: flow) else { return }
        flows[index].update(sequence) { entry in
            if isSuperPacket { entry.facts.formUnion(.superPacket) }
            if isInferred { entry.facts.formUnion(.inferred) }
            switch side {
            case .out:
                guard !entry.facts.contains(.wireOut) else { return entry.facts.formUnion(.wireOutAgain) }
                entry.facts.formUnion(.wireOut)
                entry.wireOut = time
            case .in:
                guard !entry.facts.contains(.wireIn) else { return entry.facts.formUnion(.wireInAgain) }
                entry.facts.formUnion(.wireIn)
                entry.wireIn = time
            }
            Self.note(length, &entry)
        }
    }

    /// Brings the receiver's times of a flow onto the sender's clock.
    public mutating func mapReceiverTimes(flow id: UInt32, _ transform: (Int64) -> Int64) {
        guard let index = indices[id] else { return }
        func map(_ entry: inout JoinedDatagram) {
            if entry.wireIn != JoinedDatagram.unknown { entry.wireIn = transform(entry.wireIn) }
            if entry.kernel != JoinedDatagram.unknown { entry.kernel = transform(entry.kernel) }
        }
        for place in flows[index].dense.indices { map(&flows[index].dense[place]) }
        for key in Array(flows[index].sparse.keys) { map(&flows[index].sparse[key]!) }
    }

    /// The receive log's word.
    ///
    /// - Parameter dropped: The socket's drop counter as it came with the datagram; `nil` if it did not.
    public mutating func addReceived(
        flow: UInt32,
        sequence: UInt64,
        length: Int,
        kernel: Int64,
        read: Int64,
        dropped: UInt32?
    ) {
        guard let index = place(of: flow) else { return }
        flows[index].update(sequence) { entry in
            guard !entry.facts.contains(.received) else { return entry.facts.formUnion(.receivedAgain) }
            entry.facts.formUnion(.received)
            entry.kernel = kernel
            entry.readDelta = UInt32(clamping: difference(read, kernel))
            if read < kernel { entry.facts.formUnion(.readBeforeStamp) }
            if let dropped {
                entry.dropped = dropped
                entry.facts.formUnion(.hasDropCount)
            }
            Self.note(length, &entry)
        }
    }

    @inline(__always)
    private static func note(_ length: Int, _ entry: inout JoinedDatagram) {
        if entry.length == 0 {
            entry.length = UInt16(clamping: length)
        } else if Int(entry.length) != length {
            entry.facts.formUnion(.lengthsDiffer)
        }
    }
}

/// `a - b`; the largest there is where it does not fit. Times in files may be anything.
func difference(_ a: Int64, _ b: Int64) -> Int64 {
    let (value, overflows) = a.subtractingReportingOverflow(b)
    return overflows ? (a < b ? -.max : .max) : max(value, -.max)
}

/// A sum that stays at the largest number.
func sum(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let (value, overflows) = a.addingReportingOverflow(b)
    return overflows ? .max : value
}
