import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdCore
import Lab
import NIOCore
public import PipelineCore
import Report
import Synchronization

/// The movie of a run for any player, while it arrives from all its sources.
///
/// `/movie/NAME` is the movie, with Range; `/` a page with a player that says what it does, which goes to `player.jsonl` in the
/// run's folder. `/clock` is the time of the run in nanoseconds, for that page.
public struct PlayServer: Sendable {
    private let folder: String
    private let files: FileBoard
    private let name: String
    private let audience = Audience()
    private let log: PlayerLog

    /// - Parameters:
    ///   - folder: The run's folder; it need not be there yet.
    ///   - files: Where the run makes the movie known that it receives.
    ///   - name: What the movie is called.
    public init(folder: String, files: FileBoard, name: String) {
        (self.folder, self.files) = (folder, files)
        // A path of one part that needs no escapes.
        let safe = name.unicodeScalars.filter {
            $0.isASCII && ($0.properties.isAlphabetic || "0123456789.-_".unicodeScalars.contains($0))
        }
        self.name = safe.isEmpty || safe.first == "." ? "movie" : String(String.UnicodeScalarView(safe))
        log = PlayerLog(folder: folder)
    }

    /// The path of the movie, to be put behind the server's address.
    public var path: String { "movie/\(name)" }

    public func serve(at address: ListenAddress) async throws(LocalServer.Failure) -> LocalServer {
        try await LocalServer(address, audience: audience) { router in
            router.get("/") { _, _ in html(PlayerPage(movie: path, title: name).html) }
            for method in [HTTPRequest.Method.get, .head] {
                router.on("/movie/\(name)", method: method) { request, _ in
                    guard let file = files.files.first else { return Response(status: .notFound) }
                    return await MovieResponse(file, audience: audience).response(to: request)
                }
            }
            router.get("/presence") { _, _ in EventStream.response(audience) { try await $0.stay() } }
            router.get("/clock") { _, _ in
                guard let time = log.now else { return Response(status: .serviceUnavailable) }
                return Response(status: .ok, body: .init(byteBuffer: ByteBuffer(string: "\(time)")))
            }
            router.post("/player") { request, _ in
                let body = try await request.body.collect(upTo: 4_096)
                return Response(status: log.append(Data(body.readableBytesView)) ? .noContent : .badRequest)
            }
        }
    }
}

/// Writes what players say to `player.jsonl`, after a look at each line: it comes from outside.
private final class PlayerLog: Sendable {
    private struct State {
        var lineCount = 0
        var origin: Int64?
    }
    private let state = Mutex(State())
    private let folder: String
    private static let types: Set<String> = [
        "play", "playing", "waiting", "pause", "seeking", "seeked", "ended", "stalled", "error", "loadedmetadata",
        "canplay",
    ]
    private static let most = 100_000

    init(folder: String) { self.folder = folder }

    /// Nanoseconds of the run; `nil` before it has begun.
    var now: Int64? {
        let origin = state.withLock { state in
            if state.origin == nil {
                state.origin = (RunReading.json(folder + "/run.json")?["origin_realtime_ns"] as? NSNumber)?.int64Value
            }
            return state.origin
        }
        var time = timespec()
        guard let origin, unsafe clock_gettime(CLOCK_REALTIME, &time) == 0 else { return nil }
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec) - origin
    }

    /// - Returns: Whether the line was one, and was written.
    func append(_ line: Data) -> Bool {
        guard let object = (try? JSONSerialization.jsonObject(with: line)) as? [String: Any],
            let type = object["type"] as? String, Self.types.contains(type)
        else { return false }
        var fields: [(key: String, value: SummaryValue)] = []
        for key in ["t_ns", "media_ns", "buffered_ns", "clock_error_ns", "page"] {
            guard let number = object[key] as? NSNumber, (0..<1 << 60).contains(number.int64Value) else { return false }
            fields.append((key: key, value: .integer(number.int64Value)))
        }
        fields.insert((key: "type", value: .text(type)), at: 1)
        let text = Data((SummaryValue.object(fields).json + "\n").utf8)
        return state.withLock { state in
            let path = folder + "/player.jsonl"
            guard state.lineCount < Self.most else { return false }
            state.lineCount += 1
            if !FileManager.default.fileExists(atPath: path) {
                return FileManager.default.createFile(atPath: path, contents: text)
            }
            guard let handle = FileHandle(forWritingAtPath: path) else { return false }
            defer { try? handle.close() }
            return (try? handle.seekToEnd()) != nil && (try? handle.write(contentsOf: text)) != nil
        }
    }
}
