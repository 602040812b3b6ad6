import Crypto

/// The digests of an object: of the whole, of each block of 64 KiB, and of those digests together.
public struct ObjectDigests: Sendable, Equatable {
    /// SHA-256 of the object.
    public var whole: [UInt8]
    /// SHA-256 of each block, 32 bytes each, one after the other.
    public var blocks: [UInt8]

    public init(whole: [UInt8], blocks: [UInt8]) {
        self.whole = whole
        self.blocks = blocks
    }

    /// SHA-256 of ``blocks``: what a list of digests that comes from the network is held against.
    public var root: [UInt8] { Array(SHA256.hash(data: blocks)) }
    /// How many blocks there are.
    public var blockCount: Int { blocks.count / 32 }
}

/// Computes the digests of an object whose bytes come in order.
public struct DigestBuilder: Sendable {
    private var whole = SHA256()
    private var block = SHA256()
    private var inBlock: UInt64 = 0
    private var blocks: [UInt8] = []

    public init() {}

    public mutating func append(_ bytes: [UInt8]) {
        whole.update(data: bytes)
        var rest = bytes[...]
        while !rest.isEmpty {
            let part = rest.prefix(Int(blockByteCount - inBlock))
            block.update(data: part)
            inBlock += UInt64(part.count)
            rest = rest.dropFirst(part.count)
            if inBlock == blockByteCount { endBlock() }
        }
    }

    private mutating func endBlock() {
        blocks += block.finalize()
        block = SHA256()
        inBlock = 0
    }

    public mutating func finish() -> ObjectDigests {
        if inBlock > 0 { endBlock() }
        return ObjectDigests(whole: Array(whole.finalize()), blocks: blocks)
    }
}
