import Crypto
import Delivery
import PipelineCore
import Testing

@Suite("Block digests")
struct BlockCheckTests {
    let object: [UInt8]
    let digests: ObjectDigests
    let offer: Offer

    init() {
        var generator = SeededGenerator(seed: 3)
        object = (0..<200_000).map { _ in UInt8.random(in: 0...255, using: &generator) }
        var builder = DigestBuilder()
        builder.append(Array(object[..<70_000]))
        builder.append(Array(object[70_000...]))
        digests = builder.finish()
        offer = Offer(
            byteCount: UInt64(object.count),
            modified: 0,
            blockByteCount: 65_536,
            digest: digests.whole,
            root: digests.root
        )
    }

    private func wholeList() -> DigestList {
        var list = DigestList(offer: offer)
        _ = list.add(BlocksAnswer(first: 0, digests: digests.blocks))
        return list
    }

    @Test("are those of each 64 KiB, and of the whole, however the bytes were cut")
    func builder() {
        #expect(digests.whole == Array(SHA256.hash(data: object)))
        #expect(digests.blockCount == 4)
        #expect(Array(digests.blocks[96...]) == Array(SHA256.hash(data: object[196_608...])))
    }

    @Test("a list comes in parts, in any order, and a false one is refused and begun anew")
    func list() {
        var list = DigestList(offer: offer)
        #expect(list.next(limit: 3)! == (0, 3))
        let holds1 = list.add(BlocksAnswer(first: 2, digests: Array(digests.blocks[64...])))
        #expect(holds1)
        #expect(list.next(limit: 9)! == (0, 2))
        let holds2 = !list.add(BlocksAnswer(first: 0, digests: Array(repeating: 0, count: 64)))
        #expect(holds2)
        #expect(!list.isWhole)
        #expect(list.next(limit: 9)! == (0, 4))
        let holds3 = list.add(BlocksAnswer(first: 0, digests: digests.blocks))
        #expect(holds3)
        #expect(list.isWhole)
        // Out of bounds: ignored.
        let holds4 = list.add(BlocksAnswer(first: 4_000_000, digests: Array(repeating: 0, count: 64)))
        #expect(holds4)
    }

    @Test("bytes in any order, twice and in any pieces, make right blocks", arguments: 1...5)
    func anyOrder(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var check = BlockCheck(byteCount: UInt64(object.count))
        let list = wholeList()
        var pieces: [Range<Int>] = []
        var start = 0
        while start < object.count {
            let end = min(object.count, start + Int.random(in: 1...30_000, using: &generator))
            pieces.append(start..<end)
            start = end
        }
        for range in (pieces + pieces.prefix(4)).shuffled(using: &generator) {
            let bytes = Array(object[range])
            let wrong = check.add(bytes.span.bytes, at: UInt64(range.lowerBound), from: 0, digests: list)
            #expect(wrong.isEmpty)
        }
        #expect(check.isComplete)
        #expect(check.heldByteCount == 0)
    }

    @Test(
        "a wrong block is laid to the one source that sent it, before or after the digests came",
        arguments: [true, false]
    )
    func oneCulprit(listFirst: Bool) {
        var check = BlockCheck(byteCount: UInt64(object.count))
        var bad = Array(object[65_536..<131_072])
        bad[5] ^= 1
        let early = check.add(
            bad.span.bytes,
            at: 65_536,
            from: 3,
            digests: listFirst ? wholeList() : DigestList(offer: offer)
        )
        let wrong = listFirst ? early : check.judgeWaiting(wholeList())
        #expect(wrong.map(\.block) == [1])
        #expect(wrong.first?.paths == [3])
        #expect(wrong.first?.range == 65_536..<131_072)
        let good = Array(object[65_536..<131_072])
        let holds5 = check.add(good.span.bytes, at: 65_536, from: 1, digests: wholeList()).isEmpty
        #expect(holds5)
        #expect(check.right.contains(1..<2))
    }

    @Test("of several that sent parts of a wrong block, a good copy shows which")
    func severalSenders() {
        var check = BlockCheck(byteCount: UInt64(object.count))
        let list = wholeList()
        var second = Array(object[30_000..<65_536])
        second[100] ^= 0xFF
        let first = Array(object[0..<30_000])
        let holds6 = check.add(first.span.bytes, at: 0, from: 0, digests: list).isEmpty
        #expect(holds6)
        let wrong = check.add(second.span.bytes, at: 30_000, from: 1, digests: list)
        #expect(wrong.first?.paths == [])
        #expect(wrong.first?.range == 0..<65_536)
        let good = Array(object[0..<65_536])
        let blamed = check.add(good.span.bytes, at: 0, from: 0, digests: list)
        #expect(blamed.map(\.paths) == [[1]])
        #expect(blamed.first?.range.isEmpty == true)
    }
}
