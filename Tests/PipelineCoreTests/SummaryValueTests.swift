import Foundation
import PipelineCore
import Testing

@Suite("Summary values")
struct SummaryValueTests {
    @Test("hostile text is JSON that others read as the same text")
    func hostile() throws {
        let text = "</script>\u{0}\u{1F}\u{7F}\"\\\n\t☃"
        let value = SummaryValue.object([(key: text, value: .list([.text(text), .number(.nan), .integer(-1), .null]))])
        for json in [value.json, value.indentedJSON()] {
            let read = try #require(JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: [Any]])
            let items = try #require(read[text])
            #expect(items[0] as? String == text)
            #expect(items[1] is NSNull)
            #expect(items[2] as? Int == -1)
        }
    }
}
