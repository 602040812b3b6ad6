import ArgumentParser
import Foundation
import Lab
import LiveView
import PipelineConfig
import PipelineCore

struct Watch: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Fetch a movie from one or more servers, and say how it would have played.",
        discussion: """
            A URL is tcp://HOST:PORT/NAME or udp://HOST:PORT/NAME; all must offer the same object. The file is written \
            beside its final name and renamed when it is whole and verified.
            """
    )
    @Argument(help: "Where the movie is, one URL for each server.")
    var urls: [String]
    @Option(help: "Scheduler: a type, or a type with options such as '{ type: alternate, mode: lock_step }'.")
    var scheduler: String = "earliest_delivery"
    @Option(name: [.customLong("out")], help: "File to write the movie to; without it the bytes are dropped.")
    var outFile: String?
    @Flag(help: "Overwrite a file that is there.")
    var force = false
    @Option(help: "Player whose thresholds are used: see 'tributary stages playout'.")
    var preset: String = "media3"
    @Option(help: "Bit rate of the movie, for files that are not MP4.")
    var bitrate: String?
    @Option(help: "Bytes in a chunk.")
    var chunk: String = "256KiB"
    @Option(help: "Chunks past the playhead that may be asked for.")
    var window: Int = 64
    @Option(help: "Folder to make the run's folder in.", completion: .directory)
    var runs: String = "runs"
    @Option(
        help: "Capture at this interface, and check the run's log against the wire (needs a build with the trait Pcap)."
    )
    var wire: String?
    @Option(help: "Give up after this long.")
    var duration: String = "24h"
    @Option(
        help: ArgumentHelp(
            "Serve the movie as it arrives, for any player: PORT or HOST:PORT, on loopback unless HOST says otherwise.",
            valueName: "[host:]port"
        )
    )
    var play: ListenAddress?
    @OptionGroup var live: LiveOption
    @OptionGroup var output: OutputOptions

    func run() async throws {
        guard !urls.isEmpty else { throw ValidationError("name at least one URL") }
        let title = URL(filePath: urls[0]).deletingPathExtension().lastPathComponent
        let folder = runs + "/" + Run.folderName("watch-" + title)
        var lines = ["run: { duration: \(SummaryValue.quoted(duration)) }", "pipelines:", "  client:", "    sources:"]
        let names = urls.indices.map { urls.count <= 26 ? String(UnicodeScalar(UInt8(97 + $0))) : "s\($0)" }
        for (name, url) in zip(names, urls) {
            lines.append("      - { name: \(name), url: \(SummaryValue.quoted(url)) }")
        }
        lines.append("    capture: { type: movie, chunk: \(SummaryValue.quoted(chunk)), window: \(window) }")
        let stage = scheduler.hasPrefix("{") ? scheduler : "{ type: \(SummaryValue.quoted(scheduler)) }"
        lines.append("    stages: [ \(stage), { type: fetch } ]")
        lines.append("    sinks:")
        let rate = bitrate.map { ", bitrate: \(SummaryValue.quoted($0))" } ?? ""
        lines.append("      - { type: playout, preset: \(SummaryValue.quoted(preset))\(rate) }")
        lines.append("      - { type: chunk_log }")
        let current = FileManager.default.currentDirectoryPath
        let name = URL(filePath: urls[0]).lastPathComponent
        // A player plays from the file; without --out it stands in the run's folder.
        // Beside the run's own files, whatever it is called.
        let isLog = ["csv", "json", "jsonl", "html", "pcapng"].contains(URL(filePath: name).pathExtension)
        let received = Run.absolute(folder) + "/" + (isLog || name.hasPrefix(".") ? "movie-" : "") + name
        if let outFile = outFile ?? (play == nil ? nil : received) {
            let path = outFile.hasPrefix("/") ? outFile : current + "/" + outFile
            lines.append("      - { type: file, path: \(SummaryValue.quoted(path)), force: \(force) }")
        }
        if let wire {
            lines.append(
                "    observers: [ { type: pcap, interface: \(SummaryValue.quoted(wire)), role: \(wire == "lo" ? "both" : "rx") } ]"
            )
        }
        let text = lines.joined(separator: "\n")
        let file = try RunFile(composed: text, name: "watch")
        try await performRun(
            file,
            identity: RunIdentity(command: CommandLine.arguments, configuration: text),
            title: title,
            baseFolder: current,
            folder: folder,
            views: ViewOptions(live: live.address, play: play, movieName: name),
            output: output
        )
    }
}
