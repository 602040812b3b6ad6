import PipelineCore
import PipelineTestKit
import Testing

@Suite("Option reader")
struct OptionReaderTests {
    @Test("records every problem and goes on with the default")
    func problems() {
        var reader = OptionReader(["rate": "fast", "count": "0", "colour": "green"])
        #expect(reader.read("rate", default: BitRate.megabitsPerSecond(1)) == .megabitsPerSecond(1))
        #expect(reader.read("count", default: 3, in: 1...9) == 3)
        #expect(reader.require("size", placeholder: ByteCount(1)) == ByteCount(1))
        _ = reader.optional("color", String.self)
        reader.finish()
        #expect(
            reader.problems.map(\.message) == [
                "'rate': expected a rate with its unit, such as 800Mbit/s, found 'fast'",
                "'count' must be 1 to 9, found 0",
                "missing 'size': size (64KiB, 2MB, 1500B)",
                "unknown option 'colour'; did you mean 'color'?",
            ]
        )
    }

    @Test("reading nothing gives the reference page")
    func describing() {
        var reader = OptionReader.describing()
        _ = reader.read("count", default: 3, in: 1...9)
        _ = reader.require("size", placeholder: ByteCount(1))
        #expect(reader.entries.map(\.key) == ["count", "size"])
        #expect(reader.entries.map(\.defaultValue) == ["3", nil])
        #expect(reader.entries.map(\.limits) == ["1 to 9", nil])
        #expect(reader.problems.isEmpty)
    }

    @Test("finds the word that was meant", arguments: [("brust", "burst"), ("pul", "pull"), ("xyz", nil)])
    func closest(word: String, meant: String?) {
        #expect(PipelineCore.closest(to: word, in: ["burst", "pull", "weighted"]) == meant)
    }
}
