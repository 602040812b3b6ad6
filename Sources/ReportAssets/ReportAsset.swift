/// The page's own script and style, as they stand beside this file.
public enum ReportAsset {
    public static var script: String { String(decoding: PackageResources.report_js, as: UTF8.self) }
    public static var style: String { String(decoding: PackageResources.report_css, as: UTF8.self) }
}
