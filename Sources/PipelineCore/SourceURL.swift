/// Where a source is: `tcp://host:port/object`, `udp://[::1]:port/object`, or `tcp://@pipeline/object` for a server in
/// the same file.
public struct SourceURL: Hashable, Sendable {
    public enum Scheme: String, Sendable, CaseIterable { case tcp, udp }
    public enum Server: Hashable, Sendable {
        /// `host:port`, with brackets around an IPv6 address.
        case address(String)
        /// A pipeline of the same file.
        case pipeline(String)
    }
    public var scheme: Scheme
    public var server: Server
    /// The object's name, percent-decoded: not yet known to be harmless, that is the server's to judge.
    public var object: [UInt8]

    /// What is wrong with a URL, in one sentence.
    public struct Mistake: Error, Hashable, Sendable {
        public var message: String
    }

    public init(_ text: String) throws(Mistake) {
        func wrong(_ what: String) -> Mistake {
            Mistake(message: "'\(text)': \(what); expected tcp://HOST:PORT/OBJECT or udp://HOST:PORT/OBJECT")
        }
        guard let separator = text.firstRange(of: "://") else { throw wrong("no scheme") }
        let schemeText = String(text[..<separator.lowerBound])
        guard let scheme = Scheme(rawValue: schemeText) else { throw wrong("unknown scheme '\(schemeText)'") }
        self.scheme = scheme
        let rest = text[separator.upperBound...]
        guard let slash = rest.firstIndex(of: "/") else { throw wrong("no object") }
        let server = rest[..<slash]
        let path = rest[rest.index(after: slash)...]
        guard !path.isEmpty else { throw wrong("no object") }
        if server.first == "@" {
            guard server.count > 1 else { throw wrong("no pipeline after '@'") }
            self.server = .pipeline(String(server.dropFirst()))
        } else {
            guard let colon = server.lastIndex(of: ":"), colon != server.startIndex,
                let port = UInt32(server[server.index(after: colon)...]), (1...65_535).contains(port)
            else { throw wrong("no port of 1 to 65535") }
            let host = server[..<colon]
            guard !host.contains(":") || (host.first == "[" && host.last == "]") else {
                throw wrong("an IPv6 address stands in brackets")
            }
            self.server = .address(String(server))
        }
        object = []
        var bytes = Array(path.utf8)[...]
        while let byte = bytes.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                object.append(byte)
                continue
            }
            let digits = String(decoding: bytes.prefix(2), as: UTF8.self)
            guard digits.utf8.count == 2, let value = UInt8(digits, radix: 16) else {
                throw wrong("'%\(digits)' is no escape")
            }
            object.append(value)
            bytes = bytes.dropFirst(2)
        }
    }
}
