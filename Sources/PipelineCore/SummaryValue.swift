/// A value of `summary.json` or of an event: just enough of JSON.
public indirect enum SummaryValue: Sendable, Equatable {
    case integer(Int64)
    /// `null` in JSON when it is not finite.
    case number(Double)
    case text(String)
    case boolean(Bool)
    case list([SummaryValue])
    case object([(key: String, value: SummaryValue)])
    case null

    public static func == (a: SummaryValue, b: SummaryValue) -> Bool { a.json == b.json }

    /// The value as JSON on one line, keys in the order given.
    public var json: String {
        switch self {
        case .integer(let value): String(value)
        case .number(let value): value.isFinite ? "\(value)" : "null"
        case .text(let text): Self.quoted(text)
        case .boolean(let value): value ? "true" : "false"
        case .list(let items): "[" + items.map(\.json).joined(separator: ",") + "]"
        case .object(let pairs):
            "{" + pairs.map { "\(Self.quoted($0.key)):\($0.value.json)" }.joined(separator: ",") + "}"
        case .null: "null"
        }
    }

    /// The value as JSON over several lines, indented by two spaces.
    public func indentedJSON(_ indent: String = "") -> String {
        let deeper = indent + "  "
        switch self {
        case .object(let pairs) where !pairs.isEmpty:
            let lines = pairs.map { "\(deeper)\(Self.quoted($0.key)): \($0.value.indentedJSON(deeper))" }
            return "{\n" + lines.joined(separator: ",\n") + "\n\(indent)}"
        case .list(let items) where items.contains(where: { if case .object = $0 { true } else { false } }):
            return "[\n" + items.map { deeper + $0.indentedJSON(deeper) }.joined(separator: ",\n") + "\n\(indent)]"
        default: return json
        }
    }

    /// A string with JSON's quotes and escapes (RFC 8259, section 7).
    public static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": quoted += "\\\""
            case "\\": quoted += "\\\\"
            case "\n": quoted += "\\n"
            case "\r": quoted += "\\r"
            case "\t": quoted += "\\t"
            case _ where scalar.value < 0x20 || scalar.value == 0x7F:
                let hex = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}

extension SummaryValue {
    /// The value under a key of an object.
    public subscript(key: String) -> SummaryValue? {
        guard case .object(let pairs) = self else { return nil }
        return pairs.first { $0.key == key }?.value
    }

    /// The items of a list; none if it is something else.
    public var items: [SummaryValue] { if case .list(let items) = self { items } else { [] } }

    /// The integer, if it is one.
    public var integer: Int64? { if case .integer(let value) = self { value } else { nil } }

    /// The text, if it is one.
    public var text: String? { if case .text(let value) = self { value } else { nil } }
}
