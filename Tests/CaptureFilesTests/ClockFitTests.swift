import CaptureFiles
import Foundation
import Testing

@Suite("Two clocks")
struct ClockFitTests {
    /// Two hosts' stamps of packets: a skew, an offset, a base delay, and queues with a heavy tail.
    struct Hosts {
        var random: SystemLike
        let skew: Double
        let offset: Double
        let base = 200_000.0
        let isHeavy: Bool

        struct SystemLike: RandomNumberGenerator {
            var state: UInt64
            mutating func next() -> UInt64 {
                state &+= 0x9E37_79B9_7F4A_7C15
                var z = state
                z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
                z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
                return z ^ (z >> 31)
            }
        }

        mutating func queue() -> Double {
            let uniform = Double.random(in: Double.leastNonzeroMagnitude..<1, using: &random)
            // Exponential with a mean of 300 us, or Pareto of index 1.2.
            return isHeavy ? 100_000 * (pow(uniform, -1 / 1.2) - 1) : -300_000 * log(uniform)
        }

        /// The second clock at a time of the first.
        func second(_ time: Double) -> Int64 { 1_000_000_000_000 + Int64((offset + time * (1 + skew)).rounded()) }
        func first(_ time: Double) -> Int64 { 1_000_000_000_000 + Int64(time.rounded()) }

        mutating func packets(_ count: Int, over seconds: Double) -> (
            forward: [(sent: Int64, received: Int64)], backward: [(sent: Int64, received: Int64)]
        ) {
            var (forward, backward): ([(sent: Int64, received: Int64)], [(sent: Int64, received: Int64)]) = ([], [])
            for index in 0..<count {
                let time = seconds * 1e9 * Double(index) / Double(count)
                forward.append((first(time), second(time + base + queue())))
                if index % 10 == 0 { backward.append((second(time), first(time + base + queue()))) }
            }
            return (forward, backward)
        }
    }

    @Test("60,000 packets in a minute: the skew is right to 0.01 ppm, with a heavy tail too", arguments: [false, true])
    func skew(isHeavy: Bool) throws {
        for seed in 0..<5 {
            var hosts = Hosts(random: .init(state: UInt64(seed)), skew: 20e-6, offset: 5e6, isHeavy: isHeavy)
            let (forward, backward) = hosts.packets(60_000, over: 60)
            let fit = try #require(ClockFit(forward: forward, backward: backward))
            #expect(abs(fit.skew - 20e-6) < 0.01e-6, "\(fit.skew)")
            #expect(fit.disagreement < 0.2e-6)
        }
    }

    @Test("the true offset is within the stated bound, 200 times of 200")
    func offset() throws {
        for seed in 0..<200 {
            let offset = Double(seed - 100) * 1e6
            var hosts = Hosts(
                random: .init(state: UInt64(1_000 + seed)),
                skew: Double(seed % 41 - 20) * 1e-6,
                offset: offset,
                isHeavy: seed % 2 == 0
            )
            let (forward, backward) = hosts.packets(2_000, over: 10)
            let fit = try #require(ClockFit(forward: forward, backward: backward))
            let time = hosts.first(5e9)
            let truth = Double(hosts.second(5e9) - time)
            let (found, bound) = fit.offset(at: time)
            #expect(abs(found - truth) <= bound, "seed \(seed): \(found) is not \(truth) within \(bound)")
            #expect(bound < 1_000_000)
        }
    }

    @Test("a line under points that lie on it is the line")
    func line() throws {
        let floor = try #require(
            DelayFloor((0..<100).map { (sent: Int64($0) * 1_000_000, received: Int64($0) * 1_000_010 + 500) })
        )
        #expect(abs(floor.slope - 10e-6) < 1e-12)
        #expect(abs(floor.value(at: 0) - 500) < 1e-6)
        #expect(DelayFloor([(1, 2)]) == nil)
        #expect(DelayFloor([(1, 2), (1, 3)]) == nil)
    }
}
