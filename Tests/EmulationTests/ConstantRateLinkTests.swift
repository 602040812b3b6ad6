import Emulation
import PipelineCore
import Testing

@Suite("Constant-rate link")
struct ConstantRateLinkTests {
    private func deliveries(_ link: inout ConstantRateLink) -> [ConstantRateLink.Delivery] {
        var all: [ConstantRateLink.Delivery] = []
        while let next = link.next {
            all.append(next)
            link.deliver()
        }
        return all
    }

    @Test("a rate that divides nothing stays within a nanosecond of the exact fraction")
    func exact() {
        var link = ConstantRateLink(rate: BitRate(bitsPerSecond: 7_000_003), latency: .zero)
        var now = Timestamp.zero
        for index in 0..<1_000 as Range<UInt64> {
            link.request(index, byteCount: 10_007, at: now)
            // The next request is made when the last is answered, as a client does.
            while let next = link.next {
                now = next.time
                link.deliver()
            }
            let exact = Double(index + 1) * 10_007 * 8e9 / 7_000_003
            #expect(abs(Double(now.nanoseconds) - exact) <= 1)
        }
    }

    @Test("latency stands before each request alone, and overlaps service when two are outstanding")
    func latency() {
        var link = ConstantRateLink(rate: .megabitsPerSecond(8), latency: .milliseconds(50), pieceByteCount: 1 << 30)
        link.request(1, byteCount: 125_000, at: .zero)
        link.request(2, byteCount: 125_000, at: .zero)
        #expect(deliveries(&link).map(\.time.nanoseconds) == [175_000_000, 300_000_000])
        link.request(3, byteCount: 125_000, at: Timestamp(nanoseconds: 300_000_000))
        #expect(deliveries(&link).map(\.time.nanoseconds) == [475_000_000])
    }

    @Test("pieces add up to the request, and only the last says so")
    func pieces() {
        var link = ConstantRateLink(rate: .megabitsPerSecond(8), latency: .zero, pieceByteCount: 1_000)
        link.request(1, byteCount: 2_500, at: .zero)
        let all = deliveries(&link)
        #expect(all.map(\.offset) == [0, 1_000, 2_000])
        #expect(all.map(\.byteCount) == [1_000, 1_000, 500])
        #expect(all.map(\.isLast) == [false, false, true])
    }

    @Test("a cancelled request leaves the path to the next at once")
    func cancel() {
        var link = ConstantRateLink(rate: .megabitsPerSecond(8), latency: .zero, pieceByteCount: 1 << 30)
        link.request(1, byteCount: 125_000, at: .zero)
        link.request(2, byteCount: 125_000, at: .zero)
        link.cancel(1, at: Timestamp(nanoseconds: 10_000_000))
        #expect(deliveries(&link).map(\.time.nanoseconds) == [135_000_000])
        link.cancel(9, at: .zero)
        #expect(link.outstandingRequestCount == 0)
    }
}
