import PipelineCore
import Testing

@Suite("Units")
struct UnitsTests {
    @Test(
        "rates are read with their unit",
        arguments: [
            ("800Mbit/s", 800_000_000), ("1.5Gbit/s", 1_500_000_000), ("9bit/s", 9), ("64kbit/s", 64_000),
        ] as [(String, UInt64)]
    )
    func rate(text: String, bits: UInt64) throws {
        #expect(try BitRate.read(text).get().bitsPerSecond == bits)
    }

    @Test(
        "a value without its unit, or out of all bounds, is refused",
        arguments: ["100", "-1Mbit/s", "1e300Gbit/s", "Mbit/s", "nanMbit/s"]
    )
    func badRate(text: String) {
        #expect(throws: OptionMismatch.self) { try BitRate.read(text).get() }
    }

    @Test("durations and sizes likewise")
    func others() throws {
        #expect(try Duration.read("250ms").get() == .milliseconds(250))
        #expect(try Duration.read("2h").get() == .seconds(7200))
        #expect(throws: OptionMismatch.self) { try Duration.read("2").get() }
        #expect(throws: OptionMismatch.self) { try Duration.read("-2s").get() }
        #expect(try ByteCount.read("64KiB").get().bytes == 65_536)
        #expect(try ByteCount.read("1.5MB").get().bytes == 1_500_000)
        #expect(try ByteCount.read("125000B").get().bytes == 125_000)
        #expect(throws: OptionMismatch.self) { try ByteCount.read("64").get() }
        #expect(throws: OptionMismatch.self) { try ByteCount.read("infB").get() }
    }

    @Test(
        "what is written is read as the same",
        arguments: [1, 999, 1_000, 65_536, 1_500_000, 8_000_000_000] as [UInt64]
    )
    func roundTrip(value: UInt64) throws {
        #expect(try BitRate.read(BitRate(bitsPerSecond: value).written).get().bitsPerSecond == value)
        #expect(try ByteCount.read(ByteCount(value).written).get().bytes == value)
    }

    @Test("the time of bytes at a rate is rounded up, and does not overflow")
    func time() {
        #expect(BitRate(bitsPerSecond: 3).nanoseconds(for: 1) == 2_666_666_667)
        #expect(BitRate.megabitsPerSecond(8).nanoseconds(for: 125_000) == 125_000_000)
        #expect(BitRate(bitsPerSecond: 1).nanoseconds(for: .max) == .max)
    }
}
