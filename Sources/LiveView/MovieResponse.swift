import Foundation
import HTTPTypes
import Hummingbird
import NIOCore
import PipelineCore

/// A movie over HTTP with Range requests (RFC 9110, section 14) while it comes: what is not there yet is waited for.
struct MovieResponse: Sendable {
    private let file: ArrivingFile
    private let audience: Audience
    /// Bytes read and handed on at once.
    private static let piece: UInt64 = 64 << 10
    /// How long to wait before looking for bytes again.
    private static let pause = Duration.milliseconds(5)

    init(_ file: ArrivingFile, audience: Audience) { (self.file, self.audience) = (file, audience) }

    /// Waits until the size is known.
    @concurrent func response(to request: Request) async -> Response {
        // The size comes with the first server's offer.
        while file.state.byteCount == nil, !file.state.hasEnded, !Task.isCancelled {
            try? await Task.sleep(for: Self.pause)
        }
        let state = file.state
        guard let total = state.byteCount else { return Response(status: .notFound) }
        var headers: HTTPFields = [.contentType: Self.type(of: state.path), .acceptRanges: "bytes"]
        var range = 0..<total
        var status = HTTPResponse.Status.ok
        if let asked = request.headers[.range] {
            switch Self.range(asked, of: total) {
            case .whole: break
            case .part(let part):
                range = part
                status = .partialContent
                headers[.contentRange] = "bytes \(part.lowerBound)-\(part.upperBound - 1)/\(total)"
            case .unsatisfiable:
                headers[.contentRange] = "bytes */\(total)"
                return Response(status: .rangeNotSatisfiable, headers: headers)
            }
        }
        headers[.contentLength] = "\(range.count)"
        if request.method == .head { return Response(status: status, headers: headers) }
        return Response(
            status: status,
            headers: headers,
            body: ResponseBody(contentLength: range.count) { [range] writer in
                audience.enter()
                defer { audience.leave() }
                // Who waits for bytes writes nothing, and would not notice that the player is gone.
                let isGone = Published(false)
                var out = writer
                try await request.body.consumeWithInboundCloseHandler { _ in
                    try await send(range, to: &out, unless: isGone)
                } onInboundClosed: {
                    isGone.publish(true)
                }
            }
        )
    }

    @concurrent private func send(
        _ range: Range<UInt64>,
        to writer: inout any ResponseBodyWriter,
        unless isGone: Published<Bool>
    )
        async throws
    {
        var handle: FileHandle?
        defer { try? handle?.close() }
        var position = range.lowerBound
        while position < range.upperBound {
            let state = file.state
            let end = min(state.received.firstMissing(from: position), range.upperBound, position + Self.piece)
            guard end > position else {
                // A response that is cut short tells the player that something is missing.
                if state.hasEnded || isGone.value { throw Missing() }
                try await Task.sleep(for: Self.pause)
                continue
            }
            // It may have been renamed meanwhile; an open one stays what it is.
            if handle == nil { handle = FileHandle(forReadingAtPath: state.path) }
            guard let open = handle else {
                try await Task.sleep(for: Self.pause)
                continue
            }
            try open.seek(toOffset: position)
            guard let data = try open.read(upToCount: Int(end - position)), !data.isEmpty else { throw Missing() }
            try await writer.write(ByteBuffer(bytes: data))
            audience.look()
            position += UInt64(data.count)
        }
        try await writer.finish(nil)
    }

    private struct Missing: Error {}

    // MARK: Headers

    enum Part: Equatable {
        case whole
        case part(Range<UInt64>)
        case unsatisfiable
    }

    /// What a Range field asks for: one range of bytes; anything else is answered with the whole, as RFC 9110 allows.
    static func range(_ field: String, of total: UInt64) -> Part {
        let parts = field.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].trimmingCharacters(in: .whitespaces).lowercased() == "bytes",
            !parts[1].contains(",")
        else { return .whole }
        let ends = parts[1].split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
            .map { $0.trimmingCharacters(in: .whitespaces) }
        func number(_ text: String) -> UInt64? {
            guard !text.isEmpty, text.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
            // More digits than fit are still a position beyond the end.
            return UInt64(text) ?? .max
        }
        guard ends.count == 2 else { return .whole }
        switch (number(ends[0]), number(ends[1])) {
        case (let first?, let last?):
            guard first <= last else { return .whole }
            return first < total ? .part(first..<min(last, total - 1) + 1) : .unsatisfiable
        case (let first?, nil) where ends[1].isEmpty: return first < total ? .part(first..<total) : .unsatisfiable
        case (nil, let count?) where ends[0].isEmpty:
            return count > 0 && total > 0 ? .part(total - min(count, total)..<total) : .unsatisfiable
        default: return .whole
        }
    }

    static func type(of path: String) -> String {
        let name = path.hasSuffix(".part") ? String(path.dropLast(5)) : path
        let types = [
            "mp4": "video/mp4", "m4v": "video/mp4", "webm": "video/webm", "mkv": "video/x-matroska", "ts": "video/mp2t",
        ]
        return types[URL(filePath: name).pathExtension.lowercased()] ?? "application/octet-stream"
    }
}

extension ArrivingFile {
    /// A file that is there; `nil` if it is not.
    convenience init?(whole path: String) {
        guard let size = (try? FileManager.default.attributesOfItem(atPath: path))?[.size] as? NSNumber else {
            return nil
        }
        self.init(path: path)
        update {
            $0.byteCount = size.uint64Value
            $0.received.insert(0..<size.uint64Value)
            $0.hasEnded = true
        }
    }
}
