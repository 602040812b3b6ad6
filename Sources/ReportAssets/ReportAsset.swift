/// The pages' own scripts and style, as they stand beside this file.
public enum ReportAsset {
    public static var script: String { String(decoding: PackageResources.report_js, as: UTF8.self) }
    public static var style: String { String(decoding: PackageResources.report_css, as: UTF8.self) }
    /// Of the page that plays a movie while it arrives.
    public static var player: String { String(decoding: PackageResources.player_js, as: UTF8.self) }
}
