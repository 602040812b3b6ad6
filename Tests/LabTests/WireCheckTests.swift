import CaptureFiles
import Delivery
import Foundation
import Lab
import Testing

/// Run folders made by hand: logs of datagrams, and captures of them with what real paths do to packets.
@Suite("Wire check")
struct WireCheckTests {
    /// A folder in the making.
    private final class Folder {
        let path = FileManager.default.temporaryDirectory.path + "/tributary-\(UUID().uuidString)"
        private var logs: [String: [UInt8]] = [:]
        init(socketDropped: Int = 0, host: String = "one") throws {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            try #"{"boot_id":"\#(host)","origin_realtime_ns":1000000000}"#.write(
                toFile: path + "/run.json",
                atomically: true,
                encoding: .utf8
            )
            try #"{"errors":[],"pipelines":{"r":{"stages":{"udp_receive":{"socket_dropped":\#(socketDropped)}}}}}"#
                .write(toFile: path + "/summary.json", atomically: true, encoding: .utf8)
        }
        deinit { try? FileManager.default.removeItem(atPath: path) }

        func log(
            _ side: DatagramRecord.Side,
            _ records: [(sequence: UInt64, count: UInt16, first: Int64, second: Int64)],
            length: UInt16 = 100,
            flow: UInt32 = 7
        ) throws {
            var bytes: [UInt8] = []
            func put(_ value: some FixedWidthInteger) {
                for shift in stride(from: 0, to: value.bitWidth, by: 8) {
                    bytes.append(UInt8(truncatingIfNeeded: value >> shift))
                }
            }
            put(DatagramRecord.magic)
            put(side.rawValue)
            put(UInt32(DatagramRecord.byteCount))
            for record in records {
                put(flow)
                put(length)
                put(length)
                put(record.count)
                put(0 as UInt16)
                put(0 as UInt32)
                put(record.sequence)
                put(record.first)
                put(record.second)
            }
            try Data(bytes).write(to: URL(filePath: path + "/datagrams-\(side).log"))
        }

        /// - Parameter packets: Time, bytes of the frame, its length on the wire.
        func capture(
            _ packets: [(time: Int64, bytes: [UInt8], length: Int)],
            role: String = "both",
            name: String = "lo",
            statistics: CaptureStatistics? = nil
        ) throws {
            let writer = try PcapngWriter(path + "/wire-\(name).pcapng", application: "test")
            var interface = CaptureInterface(linkType: LinkType.raw, snapLength: 0, resolution: .nanoseconds)
            (interface.name, interface.purpose) = (name, role)
            let index = writer.add(interface)
            for packet in packets {
                writer.append(
                    interface: index,
                    time: packet.time,
                    originalLength: packet.length,
                    bytes: packet.bytes.span.bytes
                )
            }
            if let statistics { writer.append(statistics, interface: index, time: 0) }
            try writer.finish()
        }
    }

    private static func datagram(_ sequence: UInt64, payload: Int = 68, flow: UInt32 = 7) -> [UInt8] {
        var bytes: [UInt8] = []
        WireHeader(.data, flow: flow, sequence: sequence, sendTime: 0, payloadByteCount: UInt16(payload)).append(
            to: &bytes
        )
        return bytes + [UInt8](repeating: 0xA5, count: payload)
    }

    private static func big(_ value: Int, _ count: Int = 2) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * (count - 1 - $0))) }
    }

    /// An IPv4 packet; `fragment` is the field of that name.
    private static func ip(_ payload: [UInt8], id: Int, fragment: Int = 0) -> [UInt8] {
        [0x45, 0] + big(payload.count + 20) + big(id) + big(fragment) + [64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
            + payload
    }
    private static func udp(_ payload: [UInt8], port: Int = 5_000) -> [UInt8] {
        big(port) + big(6_000) + big(payload.count + 8) + [0, 0] + payload
    }

    /// Datagrams 0 to 9, 10 us apart: what was sent and received, and the frame of each.
    private func usual(_ folder: Folder, count: Int = 10, length: UInt16 = 100) throws {
        let times = (0..<count).map { Int64($0) * 10_000 + 5_000_000_000 }
        try folder.log(
            .sent,
            times.enumerated().map { (UInt64($0.offset), 1, $0.element, $0.element + 9_000) },
            length: length
        )
        try folder.log(
            .received,
            times.enumerated().map { (UInt64($0.offset), 1, $0.element + 4_000, $0.element + 30_000) },
            length: length
        )
    }
    private func frames(_ count: Int = 10) -> [(time: Int64, bytes: [UInt8], length: Int)] {
        (0..<count).map { index in
            let bytes = Self.ip(Self.udp(Self.datagram(UInt64(index))), id: index + 1)
            return (Int64(index) * 10_000 + 5_000_004_000, bytes, bytes.count)
        }
    }

    @Test("ports that a NAT has changed, and frames that a tap shows twice, change nothing")
    func translated() throws {
        let folder = try Folder()
        try usual(folder)
        let doubled = (0..<10).flatMap { index -> [(time: Int64, bytes: [UInt8], length: Int)] in
            let bytes = Self.ip(Self.udp(Self.datagram(UInt64(index)), port: 40_000 + index), id: index + 1)
            let time = Int64(index) * 10_000 + 5_000_004_000
            return [(time, bytes, bytes.count), (time + 500, bytes, bytes.count)]
        }
        try folder.capture(doubled)
        let check = try WireCheck(folders: [folder.path])
        #expect(check.verdict == .confirmed, "\(check.reasons)")
        #expect(check.datagrams?.duplicatesOnWire.count == 0)
        #expect(check.taps.first?.doubled == 10)
    }

    @Test("a super-packet of which 128 bytes were captured is all of its datagrams")
    func superPacket() throws {
        let folder = try Folder()
        let time: Int64 = 5_000_000_000
        try folder.log(.sent, [(0, 10, time, time + 9_000)])
        try folder.log(.received, [(0, 10, time + 4_000, time + 30_000)])
        let whole = Self.ip(Self.udp((0..<10).flatMap { Self.datagram(UInt64($0)) }), id: 1)
        try folder.capture([(time + 4_000, Array(whole.prefix(128)), whole.count)])
        let check = try WireCheck(folders: [folder.path])
        #expect(check.verdict == .confirmed, "\(check.reasons)")
        #expect(check.datagrams?.wireIn == 10)
    }

    @Test("a fragmented datagram is one, and passed when its last fragment had")
    func fragments() throws {
        let folder = try Folder()
        let time: Int64 = 5_000_000_000
        try folder.log(.sent, [(0, 1, time, time + 9_000)], length: 3_000)
        // The kernel stamps it when it is whole.
        try folder.log(.received, [(0, 1, time + 6_000, time + 30_000)], length: 3_000)
        let whole = Self.udp(Self.datagram(0, payload: 2_968))
        let parts = [0, 1_480, 2_960].map { begin -> [UInt8] in
            let end = min(begin + 1_480, whole.count)
            return Self.ip(Array(whole[begin..<end]), id: 9, fragment: begin / 8 | (end < whole.count ? 0x2000 : 0))
        }
        try folder.capture(
            parts.enumerated().map { (time + 4_000 + Int64($0.offset) * 1_000, $0.element, $0.element.count) }
        )
        let check = try WireCheck(folders: [folder.path])
        #expect(check.verdict == .confirmed, "\(check.reasons)")
        #expect((check.datagrams?.wireIn, check.datagrams?.stampsEqual) == (1, 1))
        // Of a datagram that lacks a fragment the kernel makes none: nothing came in, in whatever order.
        let lossy = try Folder()
        try lossy.log(.sent, [(0, 1, time, time + 9_000)], length: 3_000)
        try lossy.log(.received, [], length: 3_000)
        try lossy.capture(
            [parts[2], parts[0]].enumerated().map {
                (time + 4_000 + Int64($0.offset) * 1_000, $0.element, $0.element.count)
            }
        )
        let lost = try WireCheck(folders: [lossy.path])
        #expect(lost.datagrams?.wireIn == 0)
        #expect(lost.verdict != .contradicted, "\(lost.reasons)")
    }

    @Test("an empty send log of a run that sent is no log to confirm")
    func emptyLog() throws {
        let folder = try Folder()
        try usual(folder)
        try folder.capture(frames())
        try
            #"{"errors":[],"pipelines":{"sent":{"stages":{"udp_send":{}}},"r":{"stages":{"udp_receive":{"socket_dropped":0}}}}}"#
            .write(toFile: folder.path + "/summary.json", atomically: true, encoding: .utf8)
        #expect(try WireCheck(folders: [folder.path]).verdict == .confirmed)
        try Data().write(to: URL(filePath: folder.path + "/datagrams-sent.log"))
        #expect(try WireCheck(folders: [folder.path]).verdict == .contradicted)
        try Data("nonsense and more of it".utf8).write(to: URL(filePath: folder.path + "/datagrams-sent.log"))
        #expect(try WireCheck(folders: [folder.path]).verdict == .inconclusive)
    }

    @Test(
        "a capture that another program made, without statistics or probes, confirms what it shows from first to last"
    )
    func foreignCapture() throws {
        let folder = try Folder()
        try usual(folder)
        try folder.capture(frames())
        #expect(try WireCheck(folders: [folder.path]).verdict == .confirmed)
        let cut = try Folder()
        try usual(cut)
        try cut.capture(Array(frames().dropFirst()))
        #expect(try WireCheck(folders: [cut.path]).verdict != .confirmed)
    }

    @Test("a cut log, a cut capture and a run that failed are said, not swallowed")
    func cut() throws {
        let folder = try Folder()
        try usual(folder)
        try folder.capture(frames())
        let log = folder.path + "/datagrams-received.log"
        try Data(Data(contentsOf: URL(filePath: log)).dropLast(7)).write(to: URL(filePath: log))
        let check = try WireCheck(folders: [folder.path])
        #expect(check.warnings.contains { $0.contains("33 of 40 bytes") }, "\(check.warnings)")
        #expect(check.verdict == .contradicted)
        try #"{"errors":["the disk is full"]}"#.write(
            toFile: folder.path + "/summary.json",
            atomically: true,
            encoding: .utf8
        )
        let failed = try WireCheck(folders: [folder.path])
        #expect(failed.verdict == .inconclusive)
        #expect(failed.reasons.contains { $0.contains("the disk is full") })
    }

    @Test("never confirmed on nothing")
    func nothing() throws {
        let folder = try Folder()
        #expect(throws: WireCheck.Unreadable.self) { try WireCheck(folders: [folder.path]) }
        try folder.capture([])
        #expect(try WireCheck(folders: [folder.path]).verdict == .inconclusive)
        try usual(folder)
        #expect(try WireCheck(folders: [folder.path]).verdict == .inconclusive)
        #expect(throws: WireCheck.Unreadable.self) { try WireCheck(folders: ["/nonexistent"]) }
    }

    @Test(
        "two hosts: clocks apart by an hour meet through flows both ways, within half a round trip; one way alone tells nothing"
    )
    func twoHosts() throws {
        let (one, two) = (try Folder(host: "one"), try Folder(host: "two"))
        let apart: Int64 = 3_600_000_000_000
        // The second clock runs 20 ppm faster.
        func second(_ time: Int64) -> Int64 { time + apart + (time - 5_000_000_000) / 50_000 }
        let times = (0..<200).map { Int64($0) * 1_000_000 + 5_000_000_000 }
        // Up: 100 us base; down: the same.
        try one.log(.sent, times.enumerated().map { (UInt64($0.offset), 1, $0.element, $0.element + 9_000) })
        try two.log(
            .received,
            times.enumerated().map {
                (
                    UInt64($0.offset), 1, second($0.element + 100_000 + Int64($0.offset % 7) * 3_000),
                    second($0.element + 200_000)
                )
            }
        )
        func capture(
            _ folder: Folder,
            _ role: String,
            _ shift: Int64,
            _ flow: UInt32,
            _ name: String,
            isSecond: Bool = false
        ) throws {
            try folder.capture(
                times.enumerated().map { index, time in
                    let bytes = Self.ip(Self.udp(Self.datagram(UInt64(index), flow: flow)), id: index + 1)
                    let passed = time + shift + (role == "rx" ? Int64(index % 7) * 3_000 : 0)
                    return (isSecond ? second(passed) : passed, bytes, bytes.count)
                },
                role: role,
                name: name
            )
        }
        try capture(one, "tx", 3_000, 7, "up-out")
        try capture(two, "rx", 100_000, 7, "up-in", isSecond: true)
        #expect(try WireCheck(folders: [one.path, two.path]).verdict == .inconclusive)
        // The way back, in logs of their own.
        let (three, four) = (try Folder(host: "two"), try Folder(host: "one"))
        try three.log(
            .sent,
            times.enumerated().map { (UInt64($0.offset), 1, second($0.element), second($0.element + 9_000)) },
            flow: 8
        )
        try four.log(
            .received,
            times.enumerated().map {
                (UInt64($0.offset), 1, $0.element + 100_000 + Int64($0.offset % 7) * 3_000, $0.element + 200_000)
            },
            flow: 8
        )
        try capture(three, "tx", 3_000, 8, "down-out", isSecond: true)
        try capture(four, "rx", 100_000, 8, "down-in")
        let check = try WireCheck(folders: [one.path, two.path, three.path, four.path])
        #expect(check.verdict == .confirmed, "\(check.reasons)")
        guard case .twoHosts(let bound, let skew) = check.clocks else {
            Issue.record("one host")
            return
        }
        #expect(bound >= 97_000 && bound < 110_000)
        #expect(abs(skew - 20e-6) < 0.1e-6)
    }
}
