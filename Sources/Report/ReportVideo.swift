import Foundation
import Lab

/// The arms of a report side by side as a film: the movie as it played, stalls as frozen frames with a label. For slides.
public struct ReportVideo {
    private let stories: [RunStory]
    private static let rate = 25
    private static let height = 360

    init(stories: [RunStory]) { self.stories = stories }

    /// Makes the film with ffmpeg.
    ///
    /// - Throws: ``ReportPage/Failure`` if ffmpeg is not there, or says that it cannot.
    public func write(movie: String, to path: String) throws {
        guard
            let program = ["/usr/bin/ffmpeg", "/usr/local/bin/ffmpeg"].first(where: {
                FileManager.default.isExecutableFile(atPath: $0)
            })
        else {
            throw ReportPage.Failure(description: "ffmpeg, which makes the film, is not here: run 'tools/setup'")
        }
        let scratch = FileManager.default.temporaryDirectory.path + "/tributary-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: scratch) }
        let graph = try filter(scratch)
        let process = Process()
        process.executableURL = URL(filePath: program)
        // Written beside its name and moved when it is whole.
        let partial = path + ".part.mp4"
        process.arguments =
            ["-v", "error", "-nostdin", "-y"] + stories.flatMap { _ in ["-i", movie] } + [
                "-filter_complex", graph, "-map", "[out]",
            ]
            + [
                "-an", "-r", "\(Self.rate)", "-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-pix_fmt",
                "yuv420p", "-movflags", "+faststart", partial,
            ]
        let errors = Pipe()
        process.standardError = errors
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        let words = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            try? FileManager.default.removeItem(atPath: partial)
            throw ReportPage.Failure(description: "ffmpeg could not make the film: \(words.suffix(500))")
        }
        _ = try? FileManager.default.removeItem(atPath: path)
        try FileManager.default.moveItem(atPath: partial, toPath: path)
    }

    /// One chain an arm, then all in a row. Texts stand in files: nothing in a name is syntax.
    private func filter(_ scratch: String) throws -> String {
        var chains: [String] = []
        // In whole frames of the run, so that roundings do not add up.
        func frame(_ time: Int64) -> Int { Int((Double(time) * Double(Self.rate) / 1e9).rounded()) }
        let end = stories.map { frame($0.segments.last?.end ?? 0) }.max() ?? 0
        for (arm, story) in stories.enumerated() {
            let parts = story.segments.filter { $0.state != .ended && frame($0.end) > frame($0.begin) }
            guard !parts.isEmpty else { throw ReportPage.Failure(description: "\(story.title): nothing was played") }
            let title = try text(story.title, "\(scratch)/title\(arm)")
            chains.append(
                "[\(arm):v]fps=\(Self.rate),scale=-2:\(Self.height),setsar=1,split=\(parts.count)"
                    + parts.indices.map { "[s\(arm)_\($0)]" }.joined()
            )
            for (index, part) in parts.enumerated() {
                let (media, count) = (frame(part.media), frame(part.end) - frame(part.begin))
                let name = "[s\(arm)_\(index)]"
                if part.state == .playing {
                    chains.append(
                        "\(name)trim=start_frame=\(media):end_frame=\(media + count),setpts=PTS-STARTPTS[p\(arm)_\(index)]"
                    )
                } else {
                    // The frame that stands still, for as long as it stood.
                    let cause = part.cause.map { ": " + $0.replacing("_", with: " ") } ?? ""
                    let label = try text(
                        part.state == .startup ? "starting" : "stalled\(cause)",
                        "\(scratch)/label\(arm)_\(index)"
                    )
                    let still = max(0, media - (media > 0 ? 1 : 0))
                    chains.append(
                        "\(name)trim=start_frame=\(still):end_frame=\(still + 1),setpts=PTS-STARTPTS,tpad=stop_mode=clone:stop=\(count - 1),"
                            + "drawtext=textfile=\(label):expansion=none:x=(w-text_w)/2:y=(h-text_h)/2:fontsize=28:fontcolor=white:box=1:boxborderw=10:boxcolor=0xD55E00@0.9[p\(arm)_\(index)]"
                    )
                }
            }
            let rest = max(0, end - frame(parts.last?.end ?? 0))
            chains.append(
                parts.indices.map { "[p\(arm)_\($0)]" }.joined()
                    + "concat=n=\(parts.count):v=1:a=0,setpts=N/(\(Self.rate)*TB),tpad=stop_mode=clone:stop=\(rest),"
                    + "drawtext=textfile=\(title):expansion=none:x=12:y=12:fontsize=22:fontcolor=white:box=1:boxborderw=6:boxcolor=black@0.7,"
                    + "drawtext=text='%{pts\\:hms}':x=w-text_w-12:y=12:fontsize=22:fontcolor=white:box=1:boxborderw=6:boxcolor=black@0.7[a\(arm)]"
            )
        }
        let inputs = stories.indices.map { "[a\($0)]" }.joined()
        chains.append(stories.count > 1 ? "\(inputs)hstack=inputs=\(stories.count)[out]" : "\(inputs)null[out]")
        return chains.joined(separator: ";")
    }

    private func text(_ text: String, _ path: String) throws -> String {
        let shown = String(
            text.unicodeScalars.prefix(80).map {
                $0.value < 0x20 || (0x7F...0x9F).contains($0.value) ? "?" : Character($0)
            }
        )
        try Data(shown.utf8).write(to: URL(filePath: path))
        return path
    }
}
