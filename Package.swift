// swift-tools-version: 6.3
import PackageDescription

/// What tests are compiled with: they talk to the C library directly.
let testSettings: [SwiftSetting] = [
    // Properties that return spans (SE-0456, SE-0446) need `@_lifetime`; swift-nio and swift-subprocess ship with it.
    .enableExperimentalFeature("Lifetimes"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .treatAllWarnings(as: .error),
]

/// What every other Swift target is compiled with.
let settings = testSettings + [.strictMemorySafety()]

let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")

let package = Package(
    name: "tributary",
    platforms: [.macOS(.v26)],
    products: [
        .executable(name: "tributary", targets: ["tributary"]),
        .library(name: "Tributary", targets: ["PipelineCore", "PipelineRuntime", "PipelineConfig", "StandardStages"]),
        .library(name: "PipelineTestKit", targets: ["PipelineTestKit"]),
        .library(name: "CaptureFiles", targets: ["CaptureFiles"]),
        .library(name: "RateTest", targets: ["RateTest", "Delivery", "Measures"]),
    ],
    traits: [
        .trait(name: "Pcap", description: "Live capture through libpcap; needs libpcap-dev")
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        // Arrows point down only: a target imports what its row names and nothing else.
        .target(
            name: "CBatchIO",
            path: "CShims/CBatchIO",
            cSettings: [.define("_GNU_SOURCE", .when(platforms: [.linux]))]
        ),

        .target(
            name: "CPolling",
            path: "CShims/CPolling",
            cSettings: [.define("_GNU_SOURCE", .when(platforms: [.linux]))]
        ),

        .systemLibrary(name: "CPcap", path: "CShims/CPcap"),

        // Vocabulary and machinery.
        .target(name: "PipelineCore", swiftSettings: settings),
        .target(name: "Measures", dependencies: ["PipelineCore"], swiftSettings: settings),
        .target(name: "PipelineRuntime", dependencies: ["PipelineCore", "CPolling"], swiftSettings: settings),
        .target(
            name: "PipelineConfig",
            dependencies: ["PipelineCore", "PipelineRuntime", .product(name: "Yams", package: "Yams")],
            swiftSettings: settings
        ),

        // Pure cores: no I/O, no clock, no globals.
        .target(name: "Delivery", dependencies: ["PipelineCore", "Measures", crypto], swiftSettings: settings),
        .target(name: "Playout", dependencies: ["PipelineCore", "Measures"], swiftSettings: settings),
        .target(name: "Emulation", dependencies: ["PipelineCore"], swiftSettings: settings),

        .target(name: "CaptureFiles", dependencies: ["Measures"], swiftSettings: settings),

        // Stages around them.
        .target(
            name: "NetworkStages",
            dependencies: ["PipelineCore", "Measures", "Delivery", "Emulation", "CBatchIO", crypto],
            swiftSettings: settings
        ),
        .target(
            name: "StreamingStages",
            dependencies: ["PipelineCore", "Delivery", "Playout", "MeasureStages"],
            swiftSettings: settings
        ),
        .target(
            name: "MeasureStages",
            dependencies: ["PipelineCore", "Measures", "Delivery"],
            swiftSettings: settings
        ),
        .target(
            name: "WireStages",
            dependencies: [
                "PipelineCore", "CaptureFiles", "Delivery", .target(name: "CPcap", condition: .when(traits: ["Pcap"])),
            ],
            swiftSettings: settings
        ),
        .target(
            name: "StandardStages",
            dependencies: ["PipelineConfig", "NetworkStages", "StreamingStages", "MeasureStages", "WireStages"],
            swiftSettings: settings
        ),

        // What people use.
        .target(
            name: "RateTest",
            dependencies: [
                "PipelineCore", "PipelineRuntime", "Measures", "Delivery", "NetworkStages", "MeasureStages", "CBatchIO",
                crypto,
            ],
            swiftSettings: settings
        ),
        .target(
            name: "Lab",
            dependencies: [
                "PipelineConfig", "PipelineRuntime", "Measures", "MeasureStages", "CaptureFiles", "Delivery", "Playout",
            ],
            swiftSettings: settings
        ),
        // The page's script and style are in the program: it runs wherever it is moved.
        .target(
            name: "ReportAssets",
            resources: [.embedInCode("report.js"), .embedInCode("report.css"), .embedInCode("player.js")],
            swiftSettings: testSettings
        ),
        .target(
            name: "Report",
            dependencies: ["Lab", "PipelineCore", "Measures", "ReportAssets", crypto],
            swiftSettings: settings
        ),
        // Pages and movies over HTTP while a run goes on; reads what the run writes, and is in nobody's way.
        .target(
            name: "LiveView",
            dependencies: [
                "Report", "Lab", "PipelineCore", .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdCore", package: "hummingbird"),
            ],
            swiftSettings: settings
        ),
        .executableTarget(
            name: "tributary",
            dependencies: [
                "LiveView", "Playout", "Report", "StandardStages", "StreamingStages", "PipelineRuntime", "Lab",
                "Measures", "RateTest", "CaptureFiles",
                "WireStages", arguments,
            ],
            swiftSettings: settings
        ),
        // A program of its own: callgrind does not survive the main thread of an asynchronous one.
        .executableTarget(
            name: "hot-loop",
            dependencies: ["RateTest"],
            path: "tools/bench/hot-loop-program",
            swiftSettings: settings
        ),
        .target(name: "PipelineTestKit", dependencies: ["PipelineCore", "PipelineRuntime"], swiftSettings: settings),

        // One test target for each that has tests.
        .testTarget(
            name: "PipelineConfigTests",
            dependencies: ["PipelineConfig", "StandardStages"],
            swiftSettings: testSettings
        ),
        .testTarget(
            name: "RateTestTests",
            dependencies: ["RateTest", "Measures", "PipelineCore"],
            swiftSettings: testSettings
        ),
        .testTarget(name: "MeasuresTests", dependencies: ["Measures", "PipelineCore"], swiftSettings: testSettings),
        .testTarget(
            name: "DeliveryTests",
            dependencies: ["Delivery", "StreamingStages", "PipelineTestKit", crypto],
            swiftSettings: testSettings
        ),
        .testTarget(
            name: "PipelineCoreTests",
            dependencies: ["PipelineCore", "PipelineTestKit"],
            swiftSettings: testSettings
        ),
        .testTarget(name: "CaptureFilesTests", dependencies: ["CaptureFiles"], swiftSettings: testSettings),
        .testTarget(name: "EmulationTests", dependencies: ["Emulation"], swiftSettings: testSettings),
        .testTarget(
            name: "LabTests",
            dependencies: ["Lab", "Measures", "CaptureFiles", "Delivery", "Playout"],
            swiftSettings: testSettings
        ),
        .testTarget(name: "ReportTests", dependencies: ["Report", "PipelineCore"], swiftSettings: testSettings),
        .testTarget(name: "PlayoutTests", dependencies: ["Playout"], swiftSettings: testSettings),
        // Sockets and the machine's clock, on loopback; run one after the other.
        .testTarget(
            name: "RealTests",
            dependencies: [
                "Delivery", "StandardStages", "Lab", "PipelineRuntime", "RateTest", "Measures", "NetworkStages",
                "CBatchIO", "CaptureFiles", "WireStages", "Report", "LiveView", "tributary",
            ],
            swiftSettings: testSettings
        ),
        .testTarget(
            name: "StandardStagesTests",
            dependencies: ["StandardStages", "PipelineRuntime", "CaptureFiles"],
            swiftSettings: testSettings
        ),
    ]
)
