import ArgumentParser
import CaptureFiles
import Foundation
import PipelineCore

extension Bench {
    /// Reading and decoding a capture, and joining its datagrams with logs: what each packet costs.
    struct WirePackets: ParsableCommand {
        static let configuration = CommandConfiguration(commandName: "wire", abstract: "Decode and join packets.")
        @Option var packets = 1_000_000
        @Option var joined = 10_000_000
        @Option var rounds = 7

        func run() throws {
            var (decode, join): ([Double], [Double]) = ([], [])
            let path = NSTemporaryDirectory() + "/tributary-bench-\(getpid()).pcapng"
            defer { try? FileManager.default.removeItem(atPath: path) }
            try write(path)
            var bytesPerPacket = 0.0
            var checksum: UInt64 = 0
            for _ in 0..<rounds {
                let began = ContinuousClock.now
                checksum &+= try read(path)
                decode.append(began.duration(to: .now) / .nanoseconds(1) / Double(packets))
                let start = ContinuousClock.now
                let made = joinAll()
                join.append(start.duration(to: .now) / .seconds(1))
                bytesPerPacket = Double(made.flows[0].byteCount) / Double(joined)
                checksum &+= UInt64(made.flows.count)
            }
            Bench.printJSON([
                ("packets", .integer(Int64(packets))), ("decode_best_ns", .number(decode.min() ?? 0)),
                ("decode_median_ns", .number(decode.sorted()[decode.count / 2])), ("joined", .integer(Int64(joined))),
                ("join_best_s", .number(join.min() ?? 0)), ("join_median_s", .number(join.sorted()[join.count / 2])),
                ("join_bytes_a_packet", .number(bytesPerPacket)),
                ("checksum", .integer(Int64(truncatingIfNeeded: checksum))),
            ])
        }

        /// UDP packets of 200 bytes, of which 96 are captured.
        private func write(_ path: String) throws {
            let writer = try PcapngWriter(path, application: "bench", replacing: true)
            let interface = writer.add(
                CaptureInterface(linkType: LinkType.ethernet, snapLength: 96, resolution: .nanoseconds)
            )
            var bytes = [UInt8](repeating: 0, count: 96)
            bytes[12] = 8
            bytes.replaceSubrange(14..<34, with: [0x45, 0, 0, 228, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2])
            bytes.replaceSubrange(34..<42, with: [0x13, 0x88, 0x17, 0x70, 0, 208, 0, 0])
            for index in 0..<packets {
                bytes[50] = UInt8(truncatingIfNeeded: index)
                unsafe writer.append(
                    interface: interface,
                    time: Int64(index) * 1_000,
                    originalLength: 242,
                    bytes: bytes.span.bytes
                )
            }
            try writer.finish()
        }

        private func read(_ path: String) throws -> UInt64 {
            var reader = try CaptureReader(path: path)
            let file = reader.file
            var sum: UInt64 = 0
            while let packet = reader.next() {
                let decoded = PacketDecoder.decode(
                    file.span.extracting(packet.bytes),
                    originalLength: packet.originalLength,
                    linkType: LinkType.ethernet
                )
                sum &+= UInt64(decoded.destinationPort) &+ UInt64(decoded.payloadLength)
            }
            return sum
        }

        /// Each datagram from a send log, both taps and a receive log.
        private func joinAll() -> DatagramJoin {
            var join = DatagramJoin()
            join.reserve(joined, flow: 1)
            for sequence in 0..<UInt64(joined) {
                join.addSent(flow: 1, sequence: sequence, length: 200, before: Int64(sequence) * 100, after: 0)
            }
            for sequence in 0..<UInt64(joined) {
                join.addWire(.out, flow: 1, sequence: sequence, length: 200, time: Int64(sequence) * 100 + 3)
            }
            for sequence in 0..<UInt64(joined) {
                join.addWire(.in, flow: 1, sequence: sequence, length: 200, time: Int64(sequence) * 100 + 4)
            }
            for sequence in 0..<UInt64(joined) {
                let time = Int64(sequence) * 100 + 4
                join.addReceived(flow: 1, sequence: sequence, length: 200, kernel: time, read: time + 20, dropped: 0)
            }
            return join
        }
    }
}
