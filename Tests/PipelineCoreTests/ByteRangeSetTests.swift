import PipelineCore
import Testing

@Suite("Ranges of bytes")
struct ByteRangeSetTests {
    @Test("say the same as a bitmap, whatever is put in and taken out", arguments: 1...8)
    func bitmap(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var set = ByteRangeSet()
        var bits = [Bool](repeating: false, count: 200)
        for _ in 0..<2_000 {
            let low = Int.random(in: 0..<200, using: &generator)
            let high = min(200, low + Int.random(in: 0...20, using: &generator))
            let range = UInt64(low)..<UInt64(high)
            let isInsertion = Int.random(in: 0..<3, using: &generator) > 0
            let changed = (low..<high).count { bits[$0] != isInsertion }
            let holds1 = (isInsertion ? set.insert(range) : set.remove(range)) == UInt64(changed)
            #expect(holds1)
            for index in low..<high { bits[index] = isInsertion }

            #expect(set.byteCount == UInt64(bits.count { $0 }))
            #expect(set.contiguousEnd == UInt64(bits.firstIndex(of: false) ?? 200))
            let from = Int.random(in: 0..<200, using: &generator)
            #expect(set.firstMissing(from: UInt64(from)) == UInt64(bits[from...].firstIndex(of: false) ?? 200))
            let missing = set.missing(in: range)
            #expect(missing.reduce(0) { $0 + $1.count } == (low..<high).count { !bits[$0] })
            #expect(missing.allSatisfy { $0.allSatisfy { !bits[Int($0)] } })
            #expect(set.contains(range) == (low..<high).allSatisfy { bits[$0] })
            for (one, next) in zip(set.ranges, set.ranges.dropFirst()) { #expect(one.upperBound < next.lowerBound) }
        }
    }

    @Test("touching ranges become one")
    func touching() {
        var set = ByteRangeSet()
        let holds2 = set.insert(10..<20) == 10
        #expect(holds2)
        let holds3 = set.insert(0..<10) == 10
        #expect(holds3)
        let holds4 = set.insert(5..<25) == 5
        #expect(holds4)
        #expect(set.ranges == [0..<25])
        #expect(set.byteCountBehindHole == 0)
    }
}
