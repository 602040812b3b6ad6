import HTTPTypes
import Hummingbird
import HummingbirdCore
import NIOCore

/// Server-sent events to one page.
struct EventStream {
    private var writer: any ResponseBodyWriter
    private let audience: Audience

    private init(writer: any ResponseBodyWriter, audience: Audience) {
        (self.writer, self.audience) = (writer, audience)
    }

    /// A response that lasts as long as `body`, or until the page is gone.
    static func response(
        _ audience: Audience,
        _ body: @escaping @Sendable @concurrent (_ stream: inout EventStream) async throws -> Void
    ) -> Response {
        Response(
            status: .ok,
            headers: [.contentType: "text/event-stream"],
            body: ResponseBody { writer in
                audience.enter()
                defer { audience.leave() }
                var stream = EventStream(writer: writer, audience: audience)
                try await body(&stream)
                try await stream.finish()
            }
        )
    }

    /// Waits while the page is slow: that is its own time and nobody else's.
    @concurrent mutating func send(_ text: String) async throws {
        try await writer.write(ByteBuffer(string: text))
        audience.look()
    }

    /// Says nothing, until the page is gone.
    @concurrent mutating func stay() async throws {
        while true {
            try await send(": here\n\n")
            try await Task.sleep(for: .seconds(1))
        }
    }

    @concurrent private consuming func finish() async throws { try await writer.finish(nil) }
}
