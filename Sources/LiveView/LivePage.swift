import Foundation
import HTTPTypes
import Hummingbird
import NIOCore
public import PipelineCore
public import Report
import Synchronization

/// The page of a run while it goes on, and the finished report from its end on.
///
/// `/` is the page, `/feed` its server-sent events, `/presence` a request that stays open while a finished page is looked
/// at, `/movie` the movie. It reads the folder, whoever writes it: a server that was ended and begun anew goes on where the
/// pages are, by the offsets into the logs that they name.
public final class LivePage: Sendable {
    private let folder: LiveFolder
    private let files: FileBoard
    private let plots: PlotLibrary
    private let audience = Audience()
    /// Of the run that has ended; made once.
    private let report = Mutex<Finished?>(nil)
    private struct Finished {
        var html: String
        var movie: ArrivingFile?
    }
    /// How often something is sent, and how often a look is taken at which runs there are.
    private static let interval = Duration.milliseconds(100)
    private static let turnInterval = Duration.milliseconds(500)
    private static let lastEventID = HTTPField.Name("Last-Event-ID")

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
            router.get("/") { _, _ in html(self.page()) }
            router.get("/feed") { request, _ in
                self.feed(
                    of: request.uri.queryParameters["of"].map(String.init),
                    from: Self.lastEventID.flatMap { request.headers[$0] }
                )
            }
            router.get("/presence") { _, _ in EventStream.response(self.audience) { try await $0.stay() } }
            for method in [HTTPRequest.Method.get, .head] {
                router.on("/movie", method: method) { request, _ in
                    guard let movie = self.movie else { return Response(status: .notFound) }
                    return await MovieResponse(movie, audience: self.audience).response(to: request)
                }
            }
        }
    }

    private var movie: ArrivingFile? { files.files.first ?? finished?.movie }

    /// The report, if the run has ended and it can be made.
    private var finished: Finished? {
        report.withLock { report in
            if let report { return report }
            guard folder.isFinished, let page = try? ReportPage(paths: [folder.path]) else { return nil }
            audience.expect()
            let movie = files.files.first ?? page.receivedMovie.flatMap { ArrivingFile(whole: $0) }
            let source: ReportPage.Movie = movie == nil ? .none : .linked("movie")
            report = Finished(html: page.html(movie: source, plots: plots, presence: "presence"), movie: movie)
            return report
        }
    }

    private func page() -> String {
        audience.expect()
        if let finished { return finished.html }
        let folders = folder.current
        return ReportPage.live(
            folders: folders,
            movie: files.files.isEmpty ? nil : "movie",
            feed: "feed?of=\(LiveFolder.key(folders))",
            plots: plots
        )
    }

    /// The events of the runs that a page shows, from a position on; from the beginning if it is none of their logs.
    private func feed(of shown: String?, from id: String?) -> Response {
        EventStream.response(audience) { [self] stream in
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
            // A page of other runs has nothing to do with these.
            var hasTurned = shown != LiveFolder.key(folders)
            var (said, looked) = (ContinuousClock.now, ContinuousClock.now)
            while true {
                let patches = hasTurned ? [] : stories.indices.map { stories[$0].advance() }
                if patches.contains(where: { $0 != nil }) {
                    let message = SummaryValue.object([
                        (key: "verdict", value: .text(stories.map(\.sentence).joined(separator: ". ") + ".")),
                        (key: "arms", value: .list(patches.map { $0 ?? .null })),
                    ])
                    let id = stories.map { "\($0.position)" }.joined(separator: ",")
                    try await stream.send("event: tick\nid: \(id)\ndata: \(message.json)\n\n")
                    said = .now
                }
                if ContinuousClock.now - looked > Self.turnInterval {
                    looked = .now
                    let isRead = stories.allSatisfy { !$0.hasEnded || $0.isAtEnd }
                    hasTurned = isRead && (folder.current != folders || folder.isFinished && finished != nil)
                }
                if hasTurned {
                    // The page comes back for the next run, or for the report.
                    audience.expect()
                    try await stream.send("event: turn\ndata: {}\n\n")
                    return
                }
                if ContinuousClock.now - said > .seconds(1) {
                    try await stream.send(": here\n\n")
                    said = .now
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

/// The folder of a run or of an experiment, as it grows.
struct LiveFolder: Sendable {
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

    /// Whether all is there that will be: a run's report is the last that it writes, after what the wire says.
    ///
    /// One whose report cannot be made has ended some seconds after its summary.
    var isFinished: Bool {
        guard !exists("report.html") else { return trials != nil || exists("summary.json") }
        let summaries = trials.map { $0.map { $0 + "/summary.json" } } ?? ["summary.json"]
        return !summaries.isEmpty && summaries.allSatisfy { isOld($0) }
    }

    private func isOld(_ name: String) -> Bool {
        let attributes = try? FileManager.default.attributesOfItem(atPath: path + "/" + name)
        return (attributes?[.modificationDate] as? Date).map { $0.timeIntervalSinceNow < -5 } ?? false
    }

    /// The folders of the runs that go on, two at most; between two trials that of the last one.
    var current: [String] {
        guard let trials else { return exists("run.json") ? [path] : [] }
        let begun = trials.filter { exists($0 + "/run.json") }
        let going = begun.filter { !exists($0 + "/summary.json") }
        return (going.isEmpty ? Array(begun.suffix(1)) : Array(going.prefix(2))).map { path + "/" + $0 }
    }

    /// What a page says that it shows: a part of a URL for each set of runs.
    static func key(_ folders: [String]) -> String {
        folders.map { folder in
            Data(URL(filePath: folder).lastPathComponent.utf8).map { String($0, radix: 16) }.joined(separator: ".")
        }.joined(separator: "-")
    }
}
