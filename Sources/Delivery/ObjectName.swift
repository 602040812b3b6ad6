/// A name that is safe to look up below a served folder: relative, without `..`, printable UTF-8, of bounded length.
public struct ObjectName: Hashable, Sendable {
    /// Why a name is refused. Each is counted by itself.
    public enum Refusal: String, Error, Sendable, CaseIterable {
        case empty
        case absolute
        /// A component `.` or `..`, or an empty one.
        case leavesFolder = "leaves_folder"
        case nul
        case controlCharacter = "control_character"
        case tooLong = "too_long"
        case notUTF8 = "not_utf8"
        /// It leads out of the folder through a symbolic link.
        case linkOutside = "link_outside"
        /// A folder, a device, a socket.
        case notAFile = "not_a_file"
        /// Nothing is there.
        case missing
    }

    /// The longest name and the longest component, in bytes.
    public static let limit = Hello.nameLimit
    public static let componentLimit = 255

    public let text: String

    /// Checks a name that came from the network.
    public init(_ bytes: [UInt8]) throws(Refusal) {
        guard !bytes.isEmpty else { throw .empty }
        guard bytes.count <= Self.limit else { throw .tooLong }
        guard !bytes.contains(0) else { throw .nul }
        guard let text = String(validating: bytes, as: UTF8.self) else { throw .notUTF8 }
        guard
            !text.unicodeScalars.contains(where: { $0.value < 0x20 || (0x7F..<0xA0).contains($0.value) || $0 == "\\" })
        else {
            throw .controlCharacter
        }
        guard bytes[0] != UInt8(ascii: "/") else { throw .absolute }
        for component in bytes.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
            guard component.count <= Self.componentLimit else { throw .tooLong }
            guard !component.isEmpty, !component.elementsEqual(".".utf8), !component.elementsEqual("..".utf8) else {
                throw .leavesFolder
            }
        }
        self.text = text
    }
}
