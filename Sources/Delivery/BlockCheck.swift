import Crypto
public import PipelineCore

/// The digests of all blocks, collected from a source's answers and held against the root that all sources agreed on.
public struct DigestList: Sendable {
    /// 32 bytes a block; empty until the list is whole and right.
    public private(set) var digests: [UInt8] = []
    private var collected: [UInt8]
    private var known = ByteRangeSet()
    private let root: [UInt8]
    private let count: Int

    public init(offer: Offer) {
        root = offer.root
        count = Int((offer.byteCount + blockByteCount - 1) / blockByteCount)
        collected = Array(repeating: 0, count: count * 32)
        if count == 0 { digests = [] }
    }

    public var isWhole: Bool { digests.count == count * 32 }

    /// The next blocks to ask for, at most so many; `nil` if all were answered.
    public func next(limit: Int) -> (first: UInt32, count: UInt32)? {
        guard !isWhole, let hole = known.missing(in: 0..<UInt64(count)).first else { return nil }
        return (UInt32(hole.lowerBound), UInt32(min(hole.count, limit)))
    }

    /// Takes an answer.
    ///
    /// - Returns: `false` if the list is whole now and is not the one that was promised; it is then begun anew.
    public mutating func add(_ answer: BlocksAnswer) -> Bool {
        let blocks = answer.digests.count / 32
        guard !isWhole, Int(answer.first) < count, blocks <= count - Int(answer.first) else { return true }
        let first = Int(answer.first)
        collected.replaceSubrange(first * 32..<(first + blocks) * 32, with: answer.digests)
        known.insert(UInt64(first)..<UInt64(first + blocks))
        guard known.contiguousEnd == UInt64(count) else { return true }
        guard Array(SHA256.hash(data: collected)) == root else {
            known = ByteRangeSet()
            return false
        }
        digests = collected
        return true
    }

    public func digest(of block: UInt64) -> ArraySlice<UInt8> { digests[Int(block) * 32..<(Int(block) + 1) * 32] }
}

/// Checks every block as it becomes whole, and says who sent a wrong one.
///
/// Bytes may come in any order and from several sources; a block is hashed when its last byte is there. A wrong block
/// that one source sent is laid to it at once. One that several sent is kept until a good copy has come, and then laid to
/// those whose bytes differ from it.
public struct BlockCheck: Sendable {
    /// A block is not what its digest says.
    public struct WrongBlock: Sendable {
        public var block: UInt64
        /// Its bytes in the object.
        public var range: Range<UInt64>
        /// Who sent wrong bytes; empty while that is not known.
        public var paths: [UInt16]
    }

    private struct Open: Sendable {
        var bytes: [UInt8]
        var filled = ByteRangeSet()
        var contributions: [(range: Range<UInt64>, path: UInt16)] = []
    }

    private let byteCount: UInt64
    private var open: [UInt64: Open] = [:]
    /// Hashed before the digests were there.
    private var unjudged: [UInt64: (digest: [UInt8], block: Open)] = [:]
    /// Wrong, from several sources, until a good copy shows whose fault it was.
    private var disputed: [UInt64: Open] = [:]
    /// Blocks that are right, in blocks.
    public private(set) var right = ByteRangeSet()

    public init(byteCount: UInt64) { self.byteCount = byteCount }

    private var blockCount: UInt64 { (byteCount + blockByteCount - 1) / blockByteCount }
    /// Whether every block is right.
    public var isComplete: Bool { right.contiguousEnd == blockCount }
    /// Bytes held in memory.
    public var heldByteCount: Int { (open.count + unjudged.count + disputed.count) * Int(blockByteCount) }

    private func range(of block: UInt64) -> Range<UInt64> {
        block * blockByteCount..<min(byteCount, (block + 1) * blockByteCount)
    }

    /// Takes new bytes.
    ///
    /// - Returns: The blocks that have turned out wrong, and sources found out for an earlier one.
    public mutating func add(_ bytes: RawSpan, at offset: UInt64, from path: UInt16, digests: DigestList)
        -> [WrongBlock]
    {
        var wrong: [WrongBlock] = []
        var position = offset
        let end = min(offset + UInt64(bytes.byteCount), byteCount)
        while position < end {
            let block = position / blockByteCount
            let whole = range(of: block)
            let part = position..<min(end, whole.upperBound)
            position = part.upperBound
            guard !right.contains(block..<block + 1) else { continue }
            var state = open.removeValue(forKey: block) ?? Open(bytes: Array(repeating: 0, count: whole.count))
            let inBlock = part.lowerBound - whole.lowerBound..<part.upperBound - whole.lowerBound
            // What is there already stays: it was passed on, and it is what is judged.
            for hole in state.filled.missing(in: inBlock) {
                let source = Int(whole.lowerBound + hole.lowerBound - offset)
                let piece = bytes.extracting(source..<source + hole.count)
                unsafe state.bytes.withUnsafeMutableBytes { target in
                    unsafe piece.withUnsafeBytes {
                        unsafe UnsafeMutableRawBufferPointer(rebasing: target[Int(hole.lowerBound)...]).copyMemory(
                            from: $0
                        )
                    }
                }
                state.contributions.append((hole, path))
            }
            state.filled.insert(inBlock)
            guard state.filled.byteCount == UInt64(whole.count) else {
                open[block] = state
                continue
            }
            let digest = Array(SHA256.hash(data: state.bytes))
            if digests.isWhole {
                wrong += judge(block, digest, state, digests)
            } else {
                unjudged[block] = (digest, state)
            }
        }
        return wrong
    }

    /// The digests have come: judges what waited for them.
    public mutating func judgeWaiting(_ digests: DigestList) -> [WrongBlock] {
        guard digests.isWhole else { return [] }
        let waiting = unjudged
        unjudged = [:]
        return waiting.sorted { $0.key < $1.key }.flatMap { judge($0.key, $0.value.digest, $0.value.block, digests) }
    }

    private mutating func judge(_ block: UInt64, _ digest: [UInt8], _ state: Open, _ digests: DigestList)
        -> [WrongBlock]
    {
        guard digests.digest(of: block).elementsEqual(digest) else {
            let paths = Set(state.contributions.map(\.path))
            if paths.count > 1 { disputed[block] = state }
            return [WrongBlock(block: block, range: range(of: block), paths: paths.count == 1 ? Array(paths) : [])]
        }
        right.insert(block..<block + 1)
        guard let bad = disputed.removeValue(forKey: block) else { return [] }
        let guilty = bad.contributions.filter { part in
            let range = Int(part.range.lowerBound)..<Int(part.range.upperBound)
            return bad.bytes[range] != state.bytes[range]
        }
        // The block is right now: an empty range says that there is nothing to fetch, only someone to blame.
        return [WrongBlock(block: block, range: 0..<0, paths: Set(guilty.map(\.path)).sorted())]
    }
}
