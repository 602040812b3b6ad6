import ReportAssets

/// A page with one player, which says what it does to the server that it comes from.
public struct PlayerPage {
    private let movie: String
    private let title: String

    /// - Parameters:
    ///   - movie: The path that it loads.
    ///   - title: What it is called.
    public init(movie: String, title: String) { (self.movie, self.title) = (movie, title) }

    public var html: String {
        let (script, style) = (ReportAsset.player, ReportAsset.style)
        let policy =
            "default-src 'none'; script-src 'sha256-\(ReportPage.digest(script))'; style-src 'sha256-\(ReportPage.digest(style))'; media-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
        return """
            <!doctype html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <meta http-equiv="Content-Security-Policy" content="\(policy)">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <link rel="icon" href="data:,">
            <title>\(ReportPage.escaped(title))</title>
            <style>\(style)</style>
            </head>
            <body data-movie="\(ReportPage.escaped(movie))">
            <header><h1>\(ReportPage.escaped(title))</h1></header>
            <main><div class="screen"><video controls muted playsinline preload="auto"></video></div>
            <p><output id="state" aria-live="polite">starting</output></p><ol id="stalls"></ol></main>
            <script>\(script)</script>
            </body>
            </html>

            """
    }
}
