// swift-tools-version: 6.3
import PackageDescription

/// SwiftNIO's datagram channel as a peer of `tools/bench/udp`; a package of its own, so that the project needs no SwiftNIO.
let package = Package(
    name: "nio",
    dependencies: [.package(url: "https://github.com/apple/swift-nio", exact: "2.101.2")],
    targets: [
        .executableTarget(
            name: "nio",
            dependencies: [
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ]
        )
    ]
)
