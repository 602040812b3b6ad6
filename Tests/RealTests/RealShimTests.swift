import CBatchIO
import Foundation
import Lab
import NetworkStages
import PipelineCore
import RateTest
import Testing

/// Two loopback sockets, the first connected to the second.
private final class Sockets {
    let sender: CInt
    let receiver: CInt
    let vectors = cbatchio_create(64)!
    var room = [UInt8](repeating: 0, count: 64 * 65_536)

    init() throws {
        let (descriptor, address) = try RawFlow.bound(to: "127.0.0.1:0", receiveBuffer: .mebibytes(4))
        receiver = descriptor
        sender = try RawFlow.connected(to: address)
    }

    deinit {
        close(sender)
        close(receiver)
        cbatchio_destroy(vectors)
    }

    func send(_ bytes: [UInt8], segment: UInt16 = 0, ecn: UInt8 = 0) -> CInt {
        var bytes = bytes
        return bytes.withUnsafeMutableBytes { raw in
            var packet = cbatchio_packet()
            packet.bytes = raw.baseAddress
            packet.byte_count = UInt32(raw.count)
            packet.segment = segment
            packet.ecn = ecn
            return cbatchio_send(vectors, sender, &packet, 1)
        }
    }

    /// What has come, waiting up to a second for the first.
    func receive(_ count: Int = 64) -> [(packet: cbatchio_packet, bytes: [UInt8])] {
        var request = pollfd(fd: receiver, events: Int16(POLLIN), revents: 0)
        guard poll(&request, 1, 1_000) > 0 else { return [] }
        return room.withUnsafeMutableBytes { raw in
            var packets = (0..<count).map { index in
                var packet = cbatchio_packet()
                packet.bytes = raw.baseAddress! + index * 65_536
                packet.byte_count = 65_536
                return packet
            }
            let got = cbatchio_receive(vectors, receiver, &packets, UInt32(count), UInt32(count))
            return packets.prefix(max(0, Int(got))).map { packet in
                (packet, Array(UnsafeRawBufferPointer(start: packet.bytes, count: Int(packet.byte_count))))
            }
        }
    }
}

@Suite("The batching shim", .tags(.real), .serialized)
struct RealShimTests {
    @Test("a super-packet is cut into its datagrams, the last one shorter, every byte in place")
    func segmentation() throws {
        let sockets = try Sockets()
        let bytes = (0..<3_333).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        #expect(sockets.send(bytes, segment: 1_000) == 1)
        let got = sockets.receive()
        #expect(got.map(\.bytes.count) == [1_000, 1_000, 1_000, 333])
        #expect(got.flatMap(\.bytes) == bytes)
        #expect(got.allSatisfy { $0.packet.segment == 0 && $0.packet.is_truncated == 0 })
    }

    @Test("with GRO it comes as one message that tells its segment")
    func coalescing() throws {
        let sockets = try Sockets()
        try #require(cbatchio_configure(sockets.receiver, AF_INET, UInt32(CBATCHIO_GRO)) == UInt32(CBATCHIO_GRO))
        let bytes = (0..<3_333).map { UInt8(truncatingIfNeeded: $0 &* 11) }
        #expect(sockets.send(bytes, segment: 1_000) == 1)
        let got = sockets.receive()
        #expect(got.count == 1)
        #expect(got.first?.packet.segment == 1_000)
        #expect(got.first?.bytes == bytes)
    }

    @Test("stamp, ECN, TTL and local address of a datagram are those it had")
    func ancillary() throws {
        let sockets = try Sockets()
        let wanted = CBATCHIO_RECEIVE_STAMPS | CBATCHIO_ECN | CBATCHIO_TTL | CBATCHIO_PACKET_INFO | CBATCHIO_DROP_COUNT
        #expect(cbatchio_configure(sockets.receiver, AF_INET, UInt32(wanted)) == UInt32(wanted))
        var ttl: CInt = 33
        setsockopt(sockets.sender, CInt(IPPROTO_IP), IP_TTL, &ttl, socklen_t(MemoryLayout<CInt>.size))
        let before = Int64(cbatchio_real_ns())
        #expect(sockets.send([1, 2, 3], ecn: 1) == 1)
        let packet = try #require(sockets.receive().first?.packet)
        #expect((before...Int64(cbatchio_real_ns())).contains(packet.kernel_time_ns))
        #expect(packet.ecn == 1)
        #expect(packet.ttl == 33)
        #expect(packet.local_length == 4)
        #expect(packet.local.0 == 127 && packet.local.3 == 1)
        #expect(packet.interface_index > 0)
        #expect(packet.address_length == 16)
    }

    @Test("send stamps come by the error queue, in order")
    func sendStamps() throws {
        let sockets = try Sockets()
        let stamps = UInt32(CBATCHIO_SEND_STAMPS)
        try #require(cbatchio_configure(sockets.sender, AF_INET, stamps) == stamps)
        let before = Int64(cbatchio_real_ns())
        for _ in 0..<3 { #expect(sockets.send([9]) == 1) }
        var errors = [cbatchio_error](repeating: cbatchio_error(), count: 8)
        #expect(cbatchio_read_errors(sockets.sender, &errors, 8) == 3)
        #expect(errors.prefix(3).map(\.info) == [0, 1, 2])
        for error in errors.prefix(3) {
            #expect(error.origin == 4 && error.error == 0)
            #expect((before...Int64(cbatchio_real_ns())).contains(error.kernel_time_ns))
        }
        #expect(cbatchio_read_errors(sockets.sender, &errors, 8) == 0)
    }

    @Test("an ICMP error is told with its code, and the next datagram goes")
    func unreachable() throws {
        let sockets = try Sockets()
        // A port that nobody listens at: the one of a socket that was just closed.
        let (gone, address) = try RawFlow.bound(to: "127.0.0.1:0", receiveBuffer: .kibibytes(64))
        let lonely = try RawFlow.connected(to: address)
        defer { close(lonely) }
        close(gone)
        _ = cbatchio_configure(lonely, AF_INET, UInt32(CBATCHIO_ERRORS))
        var packet = cbatchio_packet()
        var storage: [UInt8] = [1]
        let status = storage.withUnsafeMutableBytes { raw in
            packet.bytes = raw.baseAddress
            packet.byte_count = 1
            return cbatchio_send(sockets.vectors, lonely, &packet, 1)
        }
        #expect(status == 1)
        var errors = [cbatchio_error](repeating: cbatchio_error(), count: 2)
        #expect(cbatchio_read_errors(lonely, &errors, 2) == 1)
        #expect(errors[0].origin == 2 && errors[0].type == 3 && errors[0].code == 3 && errors[0].error == ECONNREFUSED)
    }

    @Test("what a full socket drops is counted by SO_RXQ_OVFL and SO_MEMINFO alike")
    func drops() throws {
        let sockets = try Sockets()
        _ = cbatchio_set_receive_buffer(sockets.receiver, 4_096)
        _ = cbatchio_configure(sockets.receiver, AF_INET, UInt32(CBATCHIO_DROP_COUNT))
        for _ in 0..<100 { #expect(sockets.send([UInt8](repeating: 0, count: 1_000)) == 1) }
        var memory = cbatchio_memory()
        #expect(cbatchio_read_memory(sockets.receiver, &memory) == 0)
        let waiting = sockets.receive().count
        #expect(Int(memory.dropped) == 100 - waiting)
        // The count rides on the next datagram that gets in.
        #expect(sockets.send([1]) == 1)
        #expect(sockets.receive().first?.packet.dropped == memory.dropped)
    }

    @Test("the kernel's abilities are found by trying, and only slots that changed are armed anew")
    func probeAndArming() throws {
        let found = UDPCapabilities.probe()
        #expect(found.fault == nil)
        #expect(found.maxSegments >= 64 && found.gro && found.receiveStamps && found.dropCount)
        let sockets = try Sockets()
        var room = [UInt8](repeating: 0, count: 4 * 2_048)
        room.withUnsafeMutableBytes { raw in
            var packets = (0..<4).map { index in
                var packet = cbatchio_packet()
                packet.bytes = raw.baseAddress! + index * 2_048
                packet.byte_count = 2_048
                return packet
            }
            var changed: UInt32 = 4
            for round in 0..<5 as Range<UInt8> {
                for index in 0..<3 as Range<UInt8> { #expect(sockets.send([round, index]) == 1) }
                #expect(cbatchio_receive(sockets.vectors, sockets.receiver, &packets, 4, changed) == 3)
                for index in 0..<3 {
                    #expect(packets[index].byte_count == 2)
                    #expect(raw[index * 2_048] == round && raw[index * 2_048 + 1] == UInt8(index))
                    packets[index].byte_count = 2_048
                }
                changed = 0
                #expect(cbatchio_receive(sockets.vectors, sockets.receiver, &packets, 4, 0) == 0)
            }
        }
    }

    @Test(
        "datagrams of a file's pipelines: fixed, uniform and recorded sizes, over lanes that share a port",
        arguments: [
            "size: 300B, segments: 20", "size: 64B, max_size: 1400B", "sizes_from: sizes.txt",
        ]
    )
    func pipelines(sizes: String) async throws {
        let scratch = try Scratch()
        try Data("# sizes\n40\n1000\n333\n".utf8).write(to: URL(filePath: scratch.path + "/sizes.txt"))
        // A port that is free now: the pipelines of this test name it twice.
        let (probe, address) = try RawFlow.bound(to: "127.0.0.1:0", receiveBuffer: .kibibytes(64))
        close(probe)
        let result = try await run(
            """
            run: { drain: 1s, spin: 50us }
            pipelines:
              one:
                capture: { type: udp_receive, listen: '\(address)', share_port: true, wait: spin }
                sinks: [ { type: flow_stats } ]
              two:
                capture: { type: udp_receive, listen: '\(address)', share_port: true, wait: spin }
                sinks: [ { type: flow_stats } ]
              sender:
                capture: { type: generator, count: 2000, \(sizes), flow: 7 }
                stages: [ { type: pacer, rate: 20Mbit/s, burst: 1B }, { type: udp_send, to: '\(address)' } ]
                sinks: [ { type: 'null' } ]
            """,
            folder: nil,
            base: scratch.path
        )
        #expect(result.errors.isEmpty, "\(result.errors)")
        #expect(try summary(result, "sender", "udp_send")["sent"]?.integer == 2_000)
        // The kernel gives the flow to one of the two. What is on its way when the sender ends is the receivers' loss.
        let flows = try ["one", "two"].flatMap { try summary(result, $0, "flow_stats")["flows"]?.items ?? [] }
        #expect(flows.count == 1)
        let received = flows.first?["received"]?.integer ?? 0
        #expect(received > 1_900 && received <= 2_000)
        #expect(flows.first?["missing"]?.integer == 0)
        #expect(flows.first?["duplicated"]?.integer == 0)
    }
}
