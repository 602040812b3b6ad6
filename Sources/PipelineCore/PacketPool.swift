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
    private var free: [UInt32]
    private var owners: [UInt32]

    /// Allocates the arena.
    ///
    /// - Parameters:
    ///   - slotCount: Slots that can be in use in the lane at once, those of queued packets included.
    ///   - slotByteCount: Bytes in each, rounded up to a multiple of 64.
    public init(slotCount: Int, slotByteCount: Int) {
        precondition(slotCount > 0 && slotCount < Int(UInt32.max), "slotCount must be in 1..<2^32-1")
        precondition(slotByteCount > 0, "slotByteCount must be positive")
        self.slotCount = slotCount
        self.slotByteCount = (slotByteCount + 63) & ~63
        unsafe self.arena = .allocate(byteCount: slotCount * self.slotByteCount, alignment: 4096)
        self.free = (0..<UInt32(slotCount)).reversed()
        self.owners = Array(repeating: 0, count: slotCount)
    }

    deinit { unsafe arena.deallocate() }

    /// Slots that nothing owns.
    public var freeSlotCount: Int { free.count }

    /// A free slot with one owner, the caller; `nil` if there is none.
    package func take() -> UInt32? {
        guard let slot = free.popLast() else { return nil }
        owners[Int(slot)] = 1
        return slot
    }

    /// One more packet lies in the slot.
    package func retain(_ slot: UInt32) { owners[Int(slot)] += 1 }

    /// One packet less lies in the slot; with the last the slot is free.
    package func release(_ slot: UInt32) {
        let left = owners[Int(slot)] - 1
        owners[Int(slot)] = left
        if left == 0 { free.append(slot) }
    }

    /// The bytes of a slot.
    @inlinable
    package func slotBytes(_ slot: UInt32) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            rebasing: arena[Int(slot) * slotByteCount..<(Int(slot) + 1) * slotByteCount]
        )
    }
}
