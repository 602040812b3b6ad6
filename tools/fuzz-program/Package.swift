// swift-tools-version: 6.3
import PackageDescription

/// Fuzzers of everything that reads what came from a network: `tools/fuzz` builds and runs them under libFuzzer and the
/// address sanitizer.
let package = Package(
    name: "fuzz",
    dependencies: [.package(name: "tributary", path: "../..")],
    targets: [
        .executableTarget(
            name: "fuzz",
            dependencies: [
                .product(name: "RateTest", package: "tributary"), .product(name: "CaptureFiles", package: "tributary"),
            ],
            swiftSettings: [.unsafeFlags(["-parse-as-library", "-sanitize=fuzzer,address"])],
            linkerSettings: [.unsafeFlags(["-sanitize=fuzzer,address"])]
        )
    ]
)
