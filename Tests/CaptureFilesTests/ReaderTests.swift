import CaptureFiles
import Foundation
import Testing

@Suite("Capture files")
struct ReaderTests {
    @Test(
        "pcap in both byte orders, with micro- and nanoseconds",
        arguments: [false, true],
        [0xA1B2_C3D4 as UInt32, 0xA1B2_3C4D]
    )
    func pcap(isBig: Bool, magic: UInt32) {
        var file = FileMaker(isBig: isBig)
        file.header(magic: magic, linkType: 101)
        file.record(1_700_000_000, 123_456, [1, 2, 3])
        file.record(UInt32.max, 999_999, [4], original: 1_500)
        let (reader, packets) = readAll(file.bytes)
        let scale: Int64 = magic == 0xA1B2_3C4D ? 1 : 1_000
        #expect(reader.problem == nil)
        #expect(reader.interfaces.map(\.linkType) == [101])
        #expect(
            packets.map(\.time) == [
                1_700_000_000_000_000_000 + 123_456 * scale, 4_294_967_295_000_000_000 + 999_999 * scale,
            ]
        )
        #expect(packets.map(\.originalLength) == [3, 1_500])
        #expect(packets.map { reader.file.span.extracting($0.bytes).byteCount } == [3, 1])
    }

    @Test("a second and more in a time's fraction is counted, not repaired")
    func oddTimes() {
        var file = FileMaker()
        file.header(magic: 0xA1B2_3C4D)
        file.record(10, 3_000_000_000, [1])
        let (reader, packets) = readAll(file.bytes)
        #expect(packets.map(\.time) == [13_000_000_000])
        #expect(reader.oddTimeCount == 1)
    }

    @Test("pcapng: sections in both byte orders, each interface with its own resolution and offset")
    func sections() {
        var file = FileMaker(isBig: true)
        file.section()
        file.interface(linkType: 1, options: [(9, [9]), (2, Array("eth0".utf8))])
        file.interface(linkType: 101, options: [(9, [0x80 | 10]), (14, Frame.big(100 as Int64))])
        file.block(0x0000_0BAD) { $0.put(42 as UInt32) }
        file.packet(1, 2_048 + 512, [1, 2, 3, 4, 5], comment: "two and a half")
        file.isBig = false
        file.section()
        file.interface(linkType: 228)
        file.packet(0, 7, [9])
        file.block(3) {
            $0.put(2 as UInt32)
            $0.bytes += [7, 7]
        }
        let (reader, packets) = readAll(file.bytes)
        #expect(reader.problem == nil)
        #expect(reader.sectionCount == 2)
        #expect(reader.skippedBlockCount == 1)
        #expect(reader.interfaces.map(\.linkType) == [1, 101, 228])
        #expect(reader.interfaces[0].name == "eth0")
        #expect(packets.map(\.time) == [102_500_000_000, 7_000, nil])
        #expect(packets.map(\.interface) == [1, 2, 2])
        #expect(reader.comments(of: packets[0]) == ["two and a half"])
        #expect(packets.map(\.bytes.count) == [5, 1, 2])
    }

    @Test("a file cut at any byte keeps its whole packets and says where it ends", arguments: [false, true])
    func cut(isNG: Bool) {
        var file = FileMaker()
        var ends: [Int] = []
        if isNG {
            file.section()
            file.interface()
        } else {
            file.header()
        }
        let start = file.bytes.count
        for index in 0..<3 {
            let data = [UInt8](repeating: UInt8(index), count: 60 + index)
            if isNG { file.packet(0, UInt64(index), data) } else { file.record(UInt32(index), 0, data) }
            ends.append(file.bytes.count)
        }
        for length in 0...file.bytes.count {
            let (reader, packets) = readAll(Array(file.bytes.prefix(length)))
            #expect(packets.count == ends.count { $0 <= length })
            let isWhole = length == file.bytes.count || ends.contains(length) || length == start || isNG && length == 28
            #expect((reader.problem == nil) == isWhole, "cut at \(length): \(String(describing: reader.problem))")
            if let problem = reader.problem { #expect(problem.offset >= 0 && problem.offset <= length) }
        }
    }

    @Test(
        "what is wrong is named with its place",
        arguments: [
            ("a captured length beyond belief", 8),
            ("a packet of an interface that is not there", 60),
        ]
    )
    func wrong(title: String, offset: Int) {
        var file = FileMaker()
        if offset == 8 {
            file.header()
            file.put(0 as UInt64)
            file.put(UInt32.max)
            file.put(UInt32.max)
        } else {
            file.section()
            file.interface()
            file.packet(3, 0, [1])
        }
        let (reader, packets) = readAll(file.bytes)
        #expect(packets.isEmpty)
        #expect(reader.problem?.offset == (offset == 8 ? 32 : 48), "\(String(describing: reader.problem))")
    }

    @Test("what is written is read back, comments and statistics too")
    func roundTrip() throws {
        let path = "/tmp/tributary-\(UInt64.random(in: 0 ... .max)).pcapng"
        defer { remove(path) }
        let writer = try PcapngWriter(path, application: "tests", comments: ["CONFIRMED"])
        var interface = CaptureInterface(linkType: 1, snapLength: 128)
        interface.name = "veth0"
        interface.purpose = "tx"
        interface.filter = "udp"
        let index = writer.add(interface)
        let data: [UInt8] = [1, 2, 3, 4, 5]
        // More than the writer's buffer holds.
        for number in 0..<40_000 {
            writer.append(
                interface: index,
                time: 1_700_000_000_123_456_789 + Int64(number),
                originalLength: 1_500,
                bytes: data.span.bytes,
                comment: number == 7 ? "seven" : nil
            )
        }
        var statistics = CaptureStatistics()
        statistics.received = 40_001
        statistics.systemDropped = 1
        writer.append(statistics, interface: index, time: 0)
        try writer.finish()
        var reader = try CaptureReader(path: path)
        var count = 0
        while let packet = reader.next() {
            #expect(packet.time == 1_700_000_000_123_456_789 + Int64(count))
            #expect(packet.originalLength == 1_500)
            if count == 7 { #expect(reader.comments(of: packet) == ["seven"]) }
            count += 1
        }
        #expect(count == 40_000)
        #expect(reader.problem == nil)
        #expect(reader.comments == ["CONFIRMED"])
        #expect(reader.interfaces[0].filter == "udp")
        #expect(reader.interfaces[0].statistics == statistics)
        #expect(throws: CaptureFileError.self) { try PcapngWriter(path, application: "tests") }
    }

    @Test("the same packets in another byte order, resolution or format are the same packets")
    func metamorphic() {
        var results: [[String]] = []
        for (isBig, isNG, isNano) in [
            (false, false, false), (true, false, true), (false, true, false), (true, true, true),
        ] {
            var file = FileMaker(isBig: isBig)
            if isNG {
                file.section()
                file.interface(options: [(9, [isNano ? 9 : 6])])
            } else {
                file.header(magic: isNano ? 0xA1B2_3C4D : 0xA1B2_C3D4)
            }
            for index in 0..<5 {
                let data = Frame.ethernet(0x0800, Frame.ipv4(17, Frame.udp(1, UInt16(index), [1, 2])))
                let microseconds = UInt64(index) * 1_000_003
                if isNG {
                    file.packet(0, microseconds * (isNano ? 1_000 : 1), data)
                } else {
                    file.record(
                        UInt32(microseconds / 1_000_000),
                        UInt32(microseconds % 1_000_000) * (isNano ? 1_000 : 1),
                        data
                    )
                }
            }
            let (reader, packets) = readAll(file.bytes)
            results.append(
                packets.map { packet in
                    let decoded = PacketDecoder.decode(
                        reader.file.span.extracting(packet.bytes),
                        originalLength: packet.originalLength,
                        linkType: 1
                    )
                    return "\(packet.time ?? -1) \(decoded.destinationPort) \(decoded.payloadLength)"
                }
            )
        }
        #expect(results[0].count == 5)
        #expect(Set(results).count == 1)
    }
}
