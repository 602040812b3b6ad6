import Foundation
import HTTPTypes
import Hummingbird
import NIOCore
public import PipelineCore
public import Report

/// The page of a run while it goes on, and the finished report from its end on.
///
/// `/` is the page, `/feed` its server-sent events, `/presence` a request that stays open while a finished page is looked
/// at, `/movie` the movie. It reads the folder, whoever writes it: a server that was ended and begun anew goes on where the
/// pages are, by the offsets into the logs that they name.
public struct LivePage: Sendable {
    private let folder: LiveFolder
    private let files: FileBoard
    private let plots: PlotLibrary
    private let audience = Audience()
    /// How often something is sent.
    private static let interval = Duration.milliseconds(100)

    /// - Parameters:
    ///   - folder: Of a run or an experiment; it need not be there yet.
    ///   - files: Where a run of this process makes the movie known that it receives.
    public init(folder: String, files: FileBoard = FileBoard(), plots: PlotLibrary) {
        self.folder = LiveFolder(path: folder)
        self.files = files
        self.plots = plots
    }

    public func serve(at address: ListenAddress) async throws(LocalServer.Failure) -> LocalServer {
        try await LocalServer(address, audience: audience) { router in
            router.get("/") { _, _ in html(page()) }
            router.get("/feed") { request, _ in feed(from: request.headers[.lastEventID]) }
            router.get("/presence") { _, _ in
                EventStream.response(audience) { try await $0.stay() }
            }
            router.get("/movie") { request, _ in
                guard let movie else { return Response(status: .notFound) }
                return await MovieResponse(movie, audience: audience).response(to: request)
            }
            router.head("/movie") { request, _ in
                guard let movie else { return Response(status: .notFound) }
                return await MovieResponse(movie, audience: audience).response(to: request)
            }
        }
    }

    private var movie: ArrivingFile? {
        if let file = files.files.first { return file }
        guard case .finished = folder.state, let page = try? ReportPage(paths: [folder.path]) else { return nil }
        return page.receivedMovie.flatMap { ArrivingFile(whole: $0) }
    }

    private func page() -> String {
        if case .finished = folder.state, let page = try? ReportPage(paths: [folder.path]) {
            let source: ReportPage.Movie = movie == nil ? .none : .linked("movie")
            return page.html(movie: source, plots: plots, presence: "presence")
        }
        return ReportPage.live(folders: folder.current, movie: movie == nil ? nil : "movie", feed: "feed", plots: plots)
    }

    /// The events from a position on; from the beginning if it is none of these logs.
    private func feed(from id: String?) -> Response {
        EventStream.response(audience) { stream in
            try await stream.send("retry: 500\n\n")
            let folders = folder.current
            var stories = folders.compactMap { LiveStory(folder: $0) }
            let positions = (id ?? "").split(separator: ",").map { LiveStory.Position(String($0)) }
            if positions.count == stories.count {
                for (index, position) in positions.enumerated() {
                    guard let position, !stories[index].skip(to: position) else { continue }
                    stories[index] = LiveStory(folder: folders[index]) ?? stories[index]
                }
            }
            var last = ContinuousClock.now
            while true {
                let patches = stories.indices.map { stories[$0].advance() }
                if patches.contains(where: { $0 != nil }) {
                    let message = SummaryValue.object([
                        (key: "verdict", value: .text(stories.map(\.sentence).joined(separator: ". ") + ".")),
                        (key: "arms", value: .list(patches.map { $0 ?? .null })),
                    ])
                    let id = stories.map { "\($0.position)" }.joined(separator: ",")
                    try await stream.send("event: tick\nid: \(id)\ndata: \(message.json)\n\n")
                    last = .now
                } else if folder.current != folders || folder.state == .finished {
                    // The page comes back for the next run, or for the report.
                    try await stream.send("event: turn\ndata: {}\n\n")
                    return
                } else if ContinuousClock.now - last > .seconds(1) {
                    try await stream.send(": here\n\n")
                    last = .now
                }
                // Whoever comes late is told in pieces, without a pause.
                if stories.allSatisfy(\.isCaughtUp) { try await Task.sleep(for: Self.interval) }
            }
        }
    }
}

/// A whole page.
func html(_ text: String) -> Response {
    Response(
        status: .ok,
        headers: [.contentType: "text/html; charset=utf-8"],
        body: ResponseBody(byteBuffer: ByteBuffer(string: text))
    )
}

extension HTTPField.Name {
    static let lastEventID = HTTPField.Name("Last-Event-ID")!
}

/// The folder of a run or of an experiment, as it grows.
struct LiveFolder: Sendable {
    enum State { case going, finished }
    let path: String

    private func exists(_ name: String) -> Bool { FileManager.default.fileExists(atPath: path + "/" + name) }

    /// The trials of an experiment; `nil` if it is none.
    private var trials: [String]? {
        guard let data = FileManager.default.contents(atPath: path + "/experiment.json"),
            let object = (try? JSONSerialization.jsonObject(with: data)) as? [String: Any],
            let trials = object["trials"] as? [[String: Any]]
        else { return nil }
        // A folder's name and no path: what the file says is not trusted.
        return trials.compactMap { $0["folder"] as? String }.filter { !$0.contains("/") && !$0.hasPrefix(".") }
    }

    var state: State {
        if let trials { return trials.allSatisfy { exists($0 + "/summary.json") } ? .finished : .going }
        return exists("summary.json") ? .finished : .going
    }

    /// The folders of the runs that go on, two at most; between two trials those of the last one.
    var current: [String] {
        guard let trials else { return exists("run.json") ? [path] : [] }
        let begun = trials.filter { exists($0 + "/run.json") }
        let going = begun.filter { !exists($0 + "/summary.json") }
        return (going.isEmpty ? Array(begun.suffix(1)) : Array(going.prefix(2))).map { path + "/" + $0 }
    }
}
