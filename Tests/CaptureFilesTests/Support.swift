import CaptureFiles
import Foundation
import Testing

/// Bytes of a file in the making, in either byte order.
struct FileMaker {
    var bytes: [UInt8] = []
    var isBig = false

    mutating func put(_ value: some FixedWidthInteger) {
        let count = value.bitWidth / 8
        for index in 0..<count {
            let shift = 8 * (isBig ? count - 1 - index : index)
            bytes.append(UInt8(truncatingIfNeeded: value >> shift))
        }
    }

    /// A pcap file header.
    mutating func header(
        magic: UInt32 = 0xA1B2_C3D4,
        minor: UInt16 = 4,
        snapLength: UInt32 = 65_535,
        linkType: UInt32 = 1
    ) {
        put(magic)
        put(2 as UInt16)
        put(minor)
        put(0 as UInt32)
        put(0 as UInt32)
        put(snapLength)
        put(linkType)
    }

    /// A pcap record.
    mutating func record(_ seconds: UInt32, _ fraction: UInt32, _ data: [UInt8], original: Int? = nil) {
        put(seconds)
        put(fraction)
        put(UInt32(data.count))
        put(UInt32(original ?? data.count))
        bytes += data
    }

    /// A pcapng block.
    mutating func block(_ type: UInt32, _ body: (inout FileMaker) -> Void) {
        var inner = FileMaker(isBig: isBig)
        body(&inner)
        while inner.bytes.count % 4 != 0 { inner.bytes.append(0) }
        let length = UInt32(inner.bytes.count + 12)
        put(type)
        put(length)
        bytes += inner.bytes
        put(length)
    }

    mutating func section() {
        block(0x0A0D_0D0A) {
            $0.put(0x1A2B_3C4D as UInt32)
            $0.put(1 as UInt16)
            $0.put(0 as UInt16)
            $0.put(UInt64.max)
        }
    }

    mutating func interface(linkType: UInt16 = 1, snapLength: UInt32 = 0, options: [(UInt16, [UInt8])] = []) {
        block(1) {
            $0.put(linkType)
            $0.put(0 as UInt16)
            $0.put(snapLength)
            for (code, value) in options { $0.option(code, value) }
        }
    }

    mutating func option(_ code: UInt16, _ value: [UInt8]) {
        put(code)
        put(UInt16(value.count))
        bytes += value
        while bytes.count % 4 != 0 { bytes.append(0) }
    }

    mutating func packet(
        _ interface: UInt32,
        _ units: UInt64,
        _ data: [UInt8],
        original: Int? = nil,
        comment: String? = nil
    ) {
        block(6) {
            $0.put(interface)
            $0.put(UInt32(truncatingIfNeeded: units >> 32))
            $0.put(UInt32(truncatingIfNeeded: units))
            $0.put(UInt32(data.count))
            $0.put(UInt32(original ?? data.count))
            $0.bytes += data
            while $0.bytes.count % 4 != 0 { $0.bytes.append(0) }
            if let comment { $0.option(1, Array(comment.utf8)) }
        }
    }
}

/// Everything that a reader gives.
func readAll(_ bytes: [UInt8]) -> (reader: CaptureReader, packets: [CapturedPacket]) {
    var reader = CaptureReader(CaptureBytes(bytes))
    var packets: [CapturedPacket] = []
    while let packet = reader.next() { packets.append(packet) }
    return (reader, packets)
}

func decode(_ bytes: [UInt8], originalLength: Int? = nil, linkType: UInt16 = LinkType.ethernet) -> DecodedPacket {
    PacketDecoder.decode(bytes.span.bytes, originalLength: originalLength ?? bytes.count, linkType: linkType)
}

/// Headers of one packet, as RFC 791, 8200, 768 and 9293 have them.
enum Frame {
    static func big(_ value: some FixedWidthInteger) -> [UInt8] {
        var maker = FileMaker(isBig: true)
        maker.put(value)
        return maker.bytes
    }
    static func udp(_ source: UInt16, _ destination: UInt16, _ payload: [UInt8], length: Int? = nil) -> [UInt8] {
        big(source) + big(destination) + big(UInt16(truncatingIfNeeded: length ?? payload.count + 8)) + [0, 0] + payload
    }
    static func tcp(
        _ source: UInt16,
        _ destination: UInt16,
        sequence: UInt32,
        acknowledgment: UInt32 = 0,
        flags: UInt16,
        window: UInt16 = 1_000,
        options: [UInt8] = [],
        _ payload: [UInt8]
    ) -> [UInt8] {
        let words = UInt16(5 + options.count / 4)
        return big(source) + big(destination) + big(sequence) + big(acknowledgment) + big(words << 12 | flags)
            + big(window)
            + [0, 0, 0, 0] + options + payload
    }
    static func ipv4(
        _ protocolNumber: UInt8,
        _ payload: [UInt8],
        length: Int? = nil,
        id: UInt16 = 1,
        fragment: UInt16 = 0
    ) -> [UInt8] {
        [0x45, 0] + big(UInt16(truncatingIfNeeded: length ?? payload.count + 20)) + big(id) + big(fragment)
            + [64, protocolNumber, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2] + payload
    }
    static func ipv6(_ next: UInt8, _ payload: [UInt8], length: Int? = nil) -> [UInt8] {
        [0x60, 0, 0, 0] + big(UInt16(truncatingIfNeeded: length ?? payload.count)) + [next, 64]
            + [0xFD] + Array(repeating: 0, count: 14) + [1] + [0xFD] + Array(repeating: 0, count: 14) + [2] + payload
    }
    static func ethernet(_ type: UInt16, _ payload: [UInt8], tags: [(UInt16, UInt16)] = []) -> [UInt8] {
        var bytes = [UInt8](repeating: 2, count: 12)
        for (tag, id) in tags { bytes += big(tag) + big(id) }
        return bytes + big(type) + payload
    }
}

/// The sample captures, which are not part of the project.
let samples: URL? = {
    let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "../shared/data/pcaps")
    return FileManager.default.fileExists(atPath: folder.path) ? folder : nil
}()

/// Files of the samples, by their names' ends.
func sampleFiles(_ folders: [String] = ["made-malformed", "pcapng-suite", "tcpdump-tests", "zeek-link", ""]) -> [String]
{
    guard let samples else { return [] }
    return folders.flatMap { folder in
        let path = folder.isEmpty ? samples.path : samples.appending(path: folder).path
        return ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted()
            .filter { $0.hasSuffix(".pcap") || $0.hasSuffix(".pcapng") }.map { path + "/" + $0 }
    }
}

/// Another program, if it is installed.
struct Tool {
    let path: String
    init?(_ name: String) {
        guard
            let path = ["/usr/bin/", "/usr/sbin/", "/usr/local/bin/"].map({ $0 + name })
                .first(where: { FileManager.default.isExecutableFile(atPath: $0) })
        else { return nil }
        self.path = path
    }

    func run(_ arguments: [String]) throws -> (status: CInt, output: String) {
        let process = Process()
        process.executableURL = URL(filePath: path)
        process.arguments = arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        process.standardInput = FileHandle.nullDevice
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: data, as: UTF8.self))
    }
}
