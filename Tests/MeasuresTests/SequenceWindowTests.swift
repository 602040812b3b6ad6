import Measures
import PipelineCore
import Testing

@Suite struct SequenceWindowTests {
    private func classes(_ sequences: [UInt64]) -> [SequenceArrival] {
        var window = SequenceWindow()
        var classes: [SequenceArrival] = []
        for sequence in sequences { classes.append(window.note(sequence)) }
        return classes
    }

    @Test("RFC 4737's example of §3.4 and its like: 3 after 4 is reordered, a second 4 is a duplicate")
    func classesOfArrivals() {
        #expect(classes([1, 2, 4, 3, 5]) == [.inOrder, .inOrder, .inOrder, .reordered, .inOrder])
        #expect(
            classes([0, 1, 1, 3, 3, 2, 2]) == [
                .inOrder, .inOrder, .duplicate, .inOrder, .duplicate, .reordered, .duplicate,
            ]
        )
        #expect(classes([70_000, 4_465, 4_466, 70_000]) == [.inOrder, .reordered, .reordered, .duplicate])
        #expect(classes([70_000, 4_464]) == [.inOrder, .late])
        #expect(classes([.max, 5, 6]) == [.late, .inOrder, .inOrder])
    }

    @Test(
        "the extent is the number of arrivals since the first with a larger number (RFC 4737 §4.2.2, by its definition)",
        arguments: 0..<40 as Range<UInt64>
    )
    func extents(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var sequences = Array(0..<UInt64(400)).filter { _ in Int.random(in: 0..<20, using: &random) > 0 }
        for _ in 0..<30 {
            let from = Int.random(in: 0..<sequences.count, using: &random)
            let moved = sequences.remove(at: from)
            sequences.insert(moved, at: min(sequences.count, from + Int.random(in: 0..<12, using: &random)))
            if Bool.random(using: &random) { sequences.insert(moved, at: min(sequences.count, from + 14)) }
        }
        var window = SequenceWindow()
        var seen: Set<UInt64> = []
        for (index, sequence) in sequences.enumerated() {
            let arrival = window.note(sequence)
            let firstLarger = sequences[..<index].firstIndex { $0 > sequence }
            let expected: SequenceArrival =
                seen.contains(sequence) ? .duplicate : firstLarger == nil ? .inOrder : .reordered
            #expect(arrival == expected)
            if arrival == .reordered { #expect(window.lastExtent == UInt64(index - (firstLarger ?? 0))) }
            seen.insert(sequence)
        }
    }

    @Test(
        "a window's worth and more of numbers, in blocks and with gaps, is told apart as by a set",
        arguments: [1, 2, 3] as [UInt64]
    )
    func longRuns(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var window = SequenceWindow()
        var seen: Set<UInt64> = []
        var next: UInt64 = 0
        for _ in 0..<300_000 {
            let dice = Int.random(in: 0..<1_000, using: &random)
            var sequence = next
            if dice < 20 { sequence = next + UInt64.random(in: 0...300, using: &random) }
            if dice == 20 { sequence = next + UInt64.random(in: 60_000...70_000, using: &random) }
            if dice > 900, next > 100 { sequence = next - UInt64.random(in: 1...min(next, 66_000), using: &random) }
            let isLate = next > sequence && next - sequence > SequenceWindow.span
            let expected: SequenceArrival =
                isLate ? .late : seen.contains(sequence) ? .duplicate : sequence >= next ? .inOrder : .reordered
            #expect(window.note(sequence) == expected)
            seen.insert(sequence)
            next = max(next, sequence + 1)
        }
    }
}

@Suite struct LogLinearHistogramTests {
    @Test("a value counts in a bucket that holds it and is no wider than 1/128 of it")
    func buckets() {
        var value: UInt64 = 0
        while value < 1 << 42 {
            let bucket = LogLinearHistogram.bucket(of: value)
            let greatest = LogLinearHistogram.greatest(of: bucket)
            let below = bucket == 0 ? 0 : LogLinearHistogram.greatest(of: bucket - 1) + 1
            #expect((below...greatest).contains(value))
            #expect(greatest - below <= value / 128)
            value = value &* 33 / 32 + 1
        }
        #expect(LogLinearHistogram.bucket(of: .max) == LogLinearHistogram.bucketCount - 1)
    }

    @Test("quantiles agree with those of the sorted values, to a bucket's width", arguments: 0..<10 as Range<UInt64>)
    func quantiles(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var histogram = LogLinearHistogram()
        var values: [UInt64] = []
        for _ in 0..<10_000 {
            let value = UInt64.random(in: 0...UInt64(1) << UInt64.random(in: 1...40, using: &random), using: &random)
            values.append(value)
            histogram.record(value)
        }
        values.sort()
        for fraction in [0, 0.001, 0.5, 0.9, 0.99, 0.999, 0.9999, 1] {
            let exact = values[max(0, Int((fraction * 10_000).rounded(.up)) - 1)]
            let found = histogram.quantile(fraction)
            #expect(found.map { $0 >= exact && $0 - exact <= exact / 128 } == true)
        }
        #expect(histogram.count == 10_000)
    }

    @Test("nothing has no quantile")
    func empty() {
        let histogram = LogLinearHistogram()
        let found = histogram.quantile(0.5)
        #expect(found == nil)
    }
}

@Suite struct InterarrivalJitterTests {
    /// The code of RFC 3550, appendix A.8, as it stands there: `d = transit - s->transit; if (d < 0) d = -d;
    /// s->jitter += d - ((s->jitter + 8) >> 4);` and `rr->jitter = s->jitter >> 4`.
    @Test("equals the arithmetic of RFC 3550 A.8")
    func reference() {
        var random = SeededGenerator(seed: 7)
        var jitter = InterarrivalJitter()
        var scaled: Int64 = 0
        for _ in 0..<1_000 {
            let difference = Int64.random(in: -500_000...500_000, using: &random)
            jitter.update(difference: difference)
            scaled += abs(difference) - ((scaled + 8) >> 4)
            #expect(jitter.nanoseconds == scaled >> 4)
        }
    }

    @Test("a constant difference d is approached from below and reached")
    func constant() {
        var jitter = InterarrivalJitter()
        for _ in 0..<1_000 { jitter.update(difference: 1_600) }
        #expect(abs(jitter.nanoseconds - 1_600) <= 1)
    }
}
