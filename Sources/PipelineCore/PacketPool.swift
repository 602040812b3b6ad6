/// The bytes behind one lane's packets: equal slots, allocated once, recycled for the whole run.
///
/// Shape: `slotCount` slots of `slotByteCount` bytes, contiguous, slot `i` at `i * slotByteCount`. Several packets may
/// lie in one slot (a received super-packet, a run of frames read in one call); the slot is free when the last is gone.
/// One pool serves one lane and one lane runs on one thread, so there is no lock and nothing to share.
/// (The idea is AF_XDP's UMEM and DPDK's mbuf pool: descriptors travel, bytes do not.)
@safe
public final class PacketPool {
    /// Slots in all.
    public let slotCount: Int
    /// Bytes in each slot.
    public let slotByteCount: Int
    @usableFromInline package let arena: UnsafeMutableRawBufferPointer
    /// The free slots, a stack, and how many owners each slot has: plain memory, because a stored property of a class costs
    /// a check of exclusivity at every access, and these are accessed for every packet.
    @usableFromInline package let free: UnsafeMutablePointer<UInt32>
    @usableFromInline package let freeCount: UnsafeMutablePointer<Int>
    @usableFromInline package let owners: UnsafeMutablePointer<UInt32>

    /// Allocates the arena.
    ///
    /// - Parameters:
    ///   - slotCount: Slots that can be in use in the lane at once, those of queued packets included.
    ///   - slotByteCount: Bytes in each, rounded up to a multiple of 64.
    ///   - isTouched: Whether to have the system find the memory now, and not at the first use of each page.
    public init(slotCount: Int, slotByteCount: Int, isTouched: Bool = false) {
        precondition(slotCount > 0 && slotCount < Int(UInt32.max), "slotCount must be in 1..<2^32-1")
        precondition(slotByteCount > 0, "slotByteCount must be positive")
        self.slotCount = slotCount
        self.slotByteCount = (slotByteCount + 63) & ~63
        unsafe self.arena = .allocate(byteCount: slotCount * self.slotByteCount, alignment: 4096)
        unsafe free = .allocate(capacity: slotCount)
        unsafe freeCount = .allocate(capacity: 1)
        unsafe owners = .allocate(capacity: slotCount)
        for slot in 0..<slotCount { unsafe (free + slot).initialize(to: UInt32(slotCount - 1 - slot)) }
        unsafe freeCount.initialize(to: slotCount)
        unsafe owners.initialize(repeating: 0, count: slotCount)
        if isTouched { unsafe arena.initializeMemory(as: UInt8.self, repeating: 0) }
    }

    deinit {
        unsafe arena.deallocate()
        unsafe free.deallocate()
        unsafe freeCount.deallocate()
        unsafe owners.deallocate()
    }

    /// Slots that nothing owns.
    public var freeSlotCount: Int { unsafe freeCount.pointee }

    /// A free slot with one owner, the caller; `nil` if there is none. What came back last is taken first.
    @inlinable @inline(__always)
    package func take() -> UInt32? {
        let count = unsafe freeCount.pointee
        guard count > 0 else { return nil }
        // In bounds: 0 < count ≤ slotCount, and every entry is a slot.
        let slot = unsafe free[count &- 1]
        unsafe freeCount.pointee = count &- 1
        unsafe owners[Int(slot)] = 1
        return slot
    }

    /// One more packet lies in the slot.
    @inlinable @inline(__always)
    package func retain(_ slot: UInt32) {
        precondition(slot < slotCount, "no such slot")
        unsafe owners[Int(slot)] += 1
    }

    /// One packet less lies in the slot; with the last the slot is free.
    @inlinable @inline(__always)
    package func release(_ slot: UInt32) {
        precondition(slot < slotCount, "no such slot")
        // Traps when it has no owner: a slot is never free twice.
        let left = unsafe owners[Int(slot)] - 1
        unsafe owners[Int(slot)] = left
        guard left == 0 else { return }
        let count = unsafe freeCount.pointee
        unsafe free[count] = slot
        unsafe freeCount.pointee = count &+ 1
    }

    /// Writes one byte everywhere.
    package func fill(_ byte: UInt8) { unsafe arena.initializeMemory(as: UInt8.self, repeating: byte) }

    /// The bytes of a slot.
    @inlinable @inline(__always)
    package func slotBytes(_ slot: UInt32) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            rebasing: arena[Int(slot) * slotByteCount..<(Int(slot) + 1) * slotByteCount]
        )
    }
}
