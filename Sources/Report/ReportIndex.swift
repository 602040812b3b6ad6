import Foundation
import Lab
import Measures
import ReportAssets

/// One page that lists the runs and experiments of a folder, newest first, with links to their pages.
public struct ReportIndex {
    /// Whether a folder is no run itself and has some in it.
    public static func isFor(_ folder: String) -> Bool {
        let own = ["run.json", "experiment.json", "chunks.csv"]
        guard !own.contains(where: { FileManager.default.fileExists(atPath: folder + "/" + $0) }) else { return false }
        return !entries(of: folder).isEmpty
    }

    private static func entries(of folder: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted(by: >).filter { name in
            ["run.json", "experiment.json"].contains {
                FileManager.default.fileExists(atPath: "\(folder)/\(name)/\($0)")
            }
        }
    }

    private let folder: String
    public init(folder: String) { self.folder = folder }

    /// The whole page; nothing in it runs.
    public var html: String {
        let style = ReportAsset.style
        var rows = ""
        var count = 0
        for name in Self.entries(of: folder) {
            let comparison = Comparison(paths: [folder + "/" + name])
            for (place, group) in comparison.groups.enumerated() {
                count += group.runs.count
                func middle(_ value: (RunReading) -> Double?) -> String {
                    median(group.runs.compactMap(value)).map { String(format: "%.3f", $0) } ?? "-"
                }
                let page = "\(name)/report.html"
                let target = FileManager.default.fileExists(atPath: folder + "/" + page) ? page : name + "/"
                let link =
                    target.addingPercentEncoding(
                        withAllowedCharacters: .urlPathAllowed.subtracting(CharacterSet(charactersIn: ":?#"))
                    ) ?? ""
                let first = place == 0 ? "<a href=\"\(ReportPage.escaped(link))\">\(ReportPage.escaped(name))</a>" : ""
                let states = group.runs.count { !$0.isFinished }
                let cells = [
                    group.arm == name ? "" : group.arm, group.transport, String(group.runs.count), middle(\.startup),
                    middle(\.stallCount), middle(\.stallTotal),
                    middle(\.finish), states == 0 ? "" : "\(states) unfinished",
                ]
                rows +=
                    "<tr><td>\(first)</td>" + cells.map { "<td>\(ReportPage.escaped($0))</td>" }.joined() + "</tr>\n"
            }
        }
        let heads = ["run", "arm", "over", "runs", "start-up s", "stalls", "stalled s", "last byte s", ""]
        return """
            <!doctype html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-\(ReportPage.digest(style))'; base-uri 'none'; form-action 'none'">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <title>\(count) runs</title>
            <style>\(style)</style>
            </head>
            <body>
            <header><h1>\(count) runs in \(ReportPage.escaped(folder))</h1></header>
            <div class="scroll"><table><thead><tr>\(heads.map { "<th scope=\"col\">\($0)</th>" }.joined())</tr></thead>
            <tbody>
            \(rows)</tbody></table></div>
            </body>
            </html>

            """
    }
}
