/// A fixed-capacity run of packets that moves from stage to stage: what flows through the house.
///
/// A batch owns the pool slots of its packets. It cannot be copied, so a packet is in exactly one batch at
/// a time and the compiler proves it. Nothing here allocates after `init`.
///
/// Dynamic dispatch is paid once per batch, never once per packet: a stage receives a whole batch through
/// an existential call and loops over ``descriptors`` in concrete code.
@safe
public struct PacketBatch: ~Copyable {
    /// The most packets this batch can hold.
    public let capacity: Int
    /// Packets in the batch, `0...capacity`.
    public var count: Int {
        @inlinable get { storedCount }
    }
    @usableFromInline internal var storedCount: Int
    @usableFromInline package let pool: PacketPool
    @usableFromInline internal let storage: UnsafeMutablePointer<PacketDescriptor>

    public init(capacity: Int, pool: PacketPool) {
        precondition(capacity > 0, "PacketBatch capacity must be positive")
        self.capacity = capacity
        self.storedCount = 0
        self.pool = pool
        unsafe self.storage = .allocate(capacity: capacity)
    }

    deinit {
        for index in 0..<count where unsafe storage[index].slot != .max { pool.release(unsafe storage[index].slot) }
        unsafe storage.deallocate()
    }

    @inlinable public var isEmpty: Bool { count == 0 }
    @inlinable public var isFull: Bool { count == capacity }
    @inlinable public var freeCapacity: Int { capacity - count }

    // MARK: Reading and editing in place

    /// The packets' descriptors, in order.
    public var descriptors: Span<PacketDescriptor> {
        @_lifetime(borrow self)
        @inlinable
        get {
            let span = unsafe Span(_unsafeStart: UnsafePointer(storage), count: count)
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }

    /// The packets' descriptors, for a stage to stamp or route in place.
    public var mutableDescriptors: MutableSpan<PacketDescriptor> {
        @_lifetime(&self)
        @inlinable
        mutating get {
            let span = unsafe MutableSpan(_unsafeStart: storage, count: count)
            return unsafe _overrideLifetime(span, mutating: &self)
        }
    }

    /// The bytes of the packet at `index`; empty if the packet has only a size.
    ///
    /// - Precondition: `index` is in `0..<count`.
    @_lifetime(borrow self)
    @inlinable
    public func payload(at index: Int) -> RawSpan {
        precondition(index >= 0 && index < count, "packet index out of range")
        let descriptor = unsafe storage[index]
        let bytes: UnsafeRawBufferPointer =
            descriptor.slot == .max
            ? unsafe UnsafeRawBufferPointer(start: nil, count: 0)
            : unsafe UnsafeRawBufferPointer(
                rebasing: pool.slotBytes(descriptor.slot)[Int(descriptor.slotOffset)...][
                    ..<(Int(descriptor.slotOffset) + Int(descriptor.byteCount))
                ]
            )
        return unsafe _overrideLifetime(RawSpan(_unsafeBytes: bytes), borrowing: self)
    }

    // MARK: Filling

    /// Appends a packet that has a size and no bytes, for virtual-time runs.
    ///
    /// - Precondition: The batch is not full.
    @inlinable
    public mutating func append(_ descriptor: PacketDescriptor) {
        precondition(!isFull, "PacketBatch capacity overflow")
        unsafe (storage + count).initialize(to: descriptor)
        unsafe storage[count].slot = .max
        storedCount += 1
    }

    /// Appends a packet and lets `body` write its bytes straight into the pool.
    ///
    /// - Parameters:
    ///   - descriptor: Its `byteCount` is replaced by the number of bytes `body` wrote.
    ///   - body: Called at most once with `slotByteCount` bytes of free space.
    /// - Returns: `false`, without calling `body`, if the batch is full or the pool has no free slot.
    /// - Throws: What `body` throws; the batch is then unchanged.
    public mutating func append<E: Error>(
        _ descriptor: PacketDescriptor,
        writing body: (inout OutputRawSpan) throws(E) -> Void
    ) throws(E) -> Bool {
        guard !isFull, let slot = pool.take() else { return false }
        let bytes = unsafe pool.slotBytes(slot)
        var output = unsafe OutputRawSpan(buffer: bytes, initializedCount: 0)
        do {
            try body(&output)
        } catch {
            pool.release(slot)
            throw error
        }
        let written = unsafe output.finalize(for: bytes)
        unsafe (storage + count).initialize(to: descriptor)
        unsafe storage[count].slot = slot
        unsafe storage[count].slotOffset = 0
        unsafe storage[count].byteCount = UInt32(written)
        storedCount += 1
        return true
    }

    /// Appends a packet whose bytes lie in a slot that the caller holds: one of many read in one system call.
    ///
    /// The slot gets one more owner; the caller releases its own when it has appended the last.
    ///
    /// - Precondition: The batch is not full and the packet lies within the slot.
    package mutating func append(_ descriptor: PacketDescriptor, in slot: UInt32, at offset: Int) {
        precondition(!isFull, "PacketBatch capacity overflow")
        precondition(offset >= 0 && offset + Int(descriptor.byteCount) <= pool.slotByteCount, "outside its slot")
        pool.retain(slot)
        unsafe (storage + count).initialize(to: descriptor)
        unsafe storage[count].slot = slot
        unsafe storage[count].slotOffset = UInt32(offset)
        storedCount += 1
    }

    /// Appends a packet that takes over a slot that the caller holds.
    ///
    /// - Precondition: The batch is not full and the packet lies within the slot.
    @inlinable
    package mutating func append(_ descriptor: PacketDescriptor, takingOver slot: UInt32) {
        precondition(!isFull, "PacketBatch capacity overflow")
        precondition(Int(descriptor.byteCount) <= pool.slotByteCount, "outside its slot")
        unsafe (storage + count).initialize(to: descriptor)
        unsafe storage[count].slot = slot
        unsafe storage[count].slotOffset = 0
        storedCount += 1
    }

    /// Where the bytes of the packet at `index` lie, for a stage that hands them to the kernel; `nil` if it has only a size.
    ///
    /// - Precondition: `index` is in `0..<count`. The address is good until the batch changes.
    @unsafe @inlinable
    package func mutableBytes(at index: Int) -> UnsafeMutableRawPointer? {
        precondition(index >= 0 && index < count, "packet index out of range")
        let descriptor = unsafe storage[index]
        guard descriptor.slot != .max else { return nil }
        return unsafe pool.slotBytes(descriptor.slot).baseAddress! + Int(descriptor.slotOffset)
    }

    /// The slot of the packet at `index`; `.max` if it has only a size.
    @inlinable
    package func slot(at index: Int) -> UInt32 {
        precondition(index >= 0 && index < count, "packet index out of range")
        return unsafe storage[index].slot
    }

    // MARK: Moving and dropping

    /// Drops the first packets and gives their slots back to the pool.
    public mutating func removeFirst(_ dropped: Int) {
        precondition(dropped >= 0 && dropped <= count, "more packets than the batch has")
        for index in 0..<dropped where unsafe storage[index].slot != .max {
            pool.release(unsafe storage[index].slot)
        }
        storedCount -= dropped
        unsafe storage.update(from: storage + dropped, count: count)
    }

    /// Moves as many packets as fit from the front of this batch to the end of `other`. No bytes are copied.
    ///
    /// - Returns: The number of packets moved.
    @discardableResult
    public mutating func moveFirst(_ limit: Int = .max, to other: inout PacketBatch) -> Int {
        precondition(pool === other.pool, "a packet never leaves its lane's pool")
        let moved = min(limit, count, other.freeCapacity)
        guard moved > 0 else { return 0 }
        unsafe (other.storage + other.count).update(from: storage, count: moved)
        other.storedCount += moved
        storedCount -= moved
        unsafe storage.update(from: storage + moved, count: count)
        return moved
    }

    /// Drops every packet and gives its slot back to the pool.
    @inlinable
    public mutating func removeAll() {
        for index in 0..<count where unsafe storage[index].slot != .max { pool.release(unsafe storage[index].slot) }
        storedCount = 0
    }
}
