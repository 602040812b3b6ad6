import Foundation
import NIOCore
import NIOPosix

/// One flow of datagrams through SwiftNIO's datagram channel, with the reference's options and output:
///
///     nio send --to HOST:PORT --size BYTES --seconds S [--gso N] [--batch M] [--flow ID]
///     nio receive --listen HOST:PORT --seconds S [--gro] [--batch M] [--flow ID]
///
/// Vectored reads and writes, its own segmentation and receive offload, buffers used again where the channel lets go of
/// them. Each header is written and read; the receiver counts loss, order and jitter and keeps no histogram, which is less
/// work than the others do.
@main
enum Main {
    static func main() throws {
        let words = Array(CommandLine.arguments.dropFirst())
        let options = try PeerOptions(words)
        switch words.first {
        case "send": try Sending(options).run()
        case "receive": try Receiving(options).run()
        default: throw PeerOptions.Wrong(text: "expected send or receive")
        }
    }
}

struct PeerOptions {
    struct Wrong: Error { var text: String }
    private var values: [String: String] = [:]
    private var flags: Set<String> = []

    init(_ words: [String]) throws {
        var rest = words.dropFirst()
        while let word = rest.popFirst() {
            if word == "--gro" || word == "--kernel-stamps" {
                flags.insert(word)
            } else {
                guard let value = rest.popFirst() else { throw Wrong(text: "\(word) needs a value") }
                values[word] = value
            }
        }
    }

    func has(_ flag: String) -> Bool { flags.contains(flag) }
    func number(_ name: String, _ otherwise: Int) -> Int { values[name].flatMap { Int($0) } ?? otherwise }
    var seconds: Double { values["--seconds"].flatMap { Double($0) } ?? 1 }

    func address(_ name: String) throws -> SocketAddress {
        let parts = (values[name] ?? "127.0.0.1:0").split(separator: ":")
        guard parts.count == 2, let port = Int(parts[1]) else { throw Wrong(text: "\(name) is HOST:PORT") }
        return try SocketAddress(ipAddress: String(parts[0]), port: port)
    }

    /// The first eight bytes of every header.
    var firstWord: UInt64 { 0x5442_14_00_0000_0000 | UInt64(number("--flow", 1)) }
}

/// What the process has used.
struct Usage {
    var processor: Double
    var runQueueDelay: Double

    static func now() -> Usage {
        var raw = rusage()
        getrusage(0, &raw)
        let microseconds = Double(raw.ru_utime.tv_usec + raw.ru_stime.tv_usec)
        var delay = 0.0
        for task in (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? [] {
            let text = (try? String(contentsOfFile: "/proc/self/task/\(task)/schedstat", encoding: .utf8)) ?? ""
            let fields = text.split(separator: " ")
            if fields.count > 1 { delay += (Double(fields[1]) ?? 0) / 1e9 }
        }
        return Usage(
            processor: Double(raw.ru_utime.tv_sec + raw.ru_stime.tv_sec) + microseconds / 1e6,
            runQueueDelay: delay
        )
    }
}

func realNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// Writes batches from the event loop, the next when the last has gone.
final class Sending: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    typealias OutboundOut = AddressedEnvelope<ByteBuffer>
    private let options: PeerOptions
    private let size: Int
    private let segments: Int
    private var buffers: [ByteBuffer]
    private var sequence: UInt64 = 0
    private var calls: Int64 = 0
    private var end = NIODeadline.distantFuture

    init(_ options: PeerOptions) {
        self.options = options
        size = options.number("--size", 1_200)
        segments = options.number("--gso", 1)
        let batch = options.number("--batch", segments > 1 ? 4 : 64)
        buffers = (0..<batch).map { [size, segments] _ in ByteBuffer(repeating: 0xA5, count: size * segments) }
        for index in buffers.indices {
            for segment in 0..<segments {
                buffers[index].setInteger(options.firstWord, at: segment * size)
                buffers[index].setInteger(UInt64(size - 32), at: segment * size + 24)
            }
        }
    }

    func run() throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let peer = try options.address("--to")
        let channel = try DatagramBootstrap(group: group)
            .channelOption(.writeBufferWaterMark, value: .init(low: 1 << 20, high: 16 << 20))
            .channelOption(.socketOption(.so_sndbuf), value: 4 << 20)
            .connect(to: peer).wait()
        let before = Usage.now()
        let began = NIODeadline.now()
        end = began + .nanoseconds(Int64(options.seconds * 1e9))
        let over = channel.eventLoop.makePromise(of: Void.self)
        channel.eventLoop.execute { self.write(channel, peer, over) }
        try over.futureResult.wait()
        let seconds = Double((NIODeadline.now() - began).nanoseconds) / 1e9
        let usage = Usage.now()
        print(
            "{\"role\":\"send\",\"seconds\":\(seconds),\"datagrams\":\(sequence),\"bytes\":\(sequence * UInt64(size)),"
                + "\"calls\":\(calls),\"cpu_seconds\":\(usage.processor - before.processor),"
                + "\"runqueue_delay_seconds\":\(usage.runQueueDelay - before.runQueueDelay)}"
        )
        try channel.close().wait()
        try group.syncShutdownGracefully()
    }

    private func write(_ channel: any Channel, _ peer: SocketAddress, _ over: EventLoopPromise<Void>) {
        guard NIODeadline.now() < end else { return over.succeed() }
        let time = realNanoseconds()
        let gone = channel.eventLoop.makePromise(of: Void.self)
        let last = buffers.count - 1
        for index in buffers.indices {
            for segment in 0..<segments {
                buffers[index].setInteger(sequence, at: segment * size + 8)
                buffers[index].setInteger(time, at: segment * size + 16)
                sequence += 1
            }
            var envelope = AddressedEnvelope(remoteAddress: peer, data: buffers[index])
            if segments > 1 {
                envelope.metadata = .init(ecnState: .transportNotCapable, packetInfo: nil, segmentSize: size)
            }
            channel.write(envelope, promise: index == last ? gone : nil)
        }
        calls += 1
        gone.futureResult.whenComplete { result in
            // In a task of its own: a write that ends at once would nest without end.
            if case .failure(let error) = result { return over.fail(error) }
            channel.eventLoop.execute { self.write(channel, peer, over) }
        }
        channel.flush()
    }
}

/// Takes each datagram of a read into account.
final class Receiving: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    private let options: PeerOptions
    private let firstWord: UInt64
    private var next: UInt64 = 0
    private var received: UInt64 = 0
    private var byteCount = 0
    private var reordered = 0
    private var corrupted = 0
    private var messages = 0
    private var calls = 0
    private var jitter: Int64 = 0
    private var previous: Int64?
    private var now: Int64 = 0
    private var first: NIODeadline?
    private var last = NIODeadline.now()
    private var before = Usage.now()

    init(_ options: PeerOptions) {
        self.options = options
        firstWord = options.firstWord
    }

    func run() throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let joins = options.has("--gro")
        let batch = options.number("--batch", joins ? 16 : 64)
        let channel = try DatagramBootstrap(group: group)
            .channelOption(.socketOption(.so_rcvbuf), value: 8 << 20)
            .channelOption(.datagramVectorReadMessageCount, value: batch)
            .channelOption(.datagramReceiveOffload, value: joins)
            .channelOption(.datagramReceiveSegmentSize, value: joins)
            .channelOption(
                .recvAllocator,
                value: FixedSizeRecvByteBufferAllocator(capacity: batch * (joins ? 65_536 : 2_048))
            )
            .channelInitializer { channel in channel.pipeline.addHandler(self) }
            .bind(to: options.address("--listen")).wait()
        FileHandle.standardOutput.write(Data("port \(channel.localAddress?.port ?? 0)\n".utf8))
        let over = channel.eventLoop.makePromise(of: Void.self)
        let patience = NIODeadline.now() + .seconds(10)
        channel.eventLoop.scheduleRepeatedTask(initialDelay: .milliseconds(20), delay: .milliseconds(20)) { task in
            let now = NIODeadline.now()
            guard let first = self.first else {
                if now > patience { over.fail(PeerOptions.Wrong(text: "no datagram within 10 s")) }
                return
            }
            if now - first > .nanoseconds(Int64(self.options.seconds * 1e9)) || now - self.last > .milliseconds(300) {
                task.cancel()
                over.succeed()
            }
        }
        try over.futureResult.wait()
        let usage = Usage.now()
        let seconds = Double((last - (first ?? last)).nanoseconds) / 1e9
        print(
            "{\"role\":\"receive\",\"seconds\":\(seconds),\"datagrams\":\(received),\"bytes\":\(byteCount),"
                + "\"lost\":\(Int64(next) - Int64(received)),\"duplicated\":0,\"reordered\":\(reordered),"
                + "\"corrupted\":\(corrupted),\"jitter_ns\":\(jitter >> 4),\"cpu_seconds\":\(usage.processor - before.processor),"
                + "\"runqueue_delay_seconds\":\(usage.runQueueDelay - before.runQueueDelay),\"calls\":\(calls),"
                + "\"messages\":\(messages)}"
        )
        try channel.close().wait()
        try group.syncShutdownGracefully()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let envelope = unwrapInboundIn(data)
        if first == nil {
            first = .now()
            before = Usage.now()
        }
        if now == 0 { now = Int64(realNanoseconds()) }
        messages += 1
        let bytes = envelope.data
        let segment = envelope.metadata?.segmentSize ?? bytes.readableBytes
        var offset = bytes.readerIndex
        while offset < bytes.writerIndex {
            let length = min(segment, bytes.writerIndex - offset)
            take(bytes, offset, length)
            offset += length
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        now = 0
        last = .now()
        calls += 1
    }

    private func take(_ bytes: ByteBuffer, _ offset: Int, _ length: Int) {
        guard length >= 32, bytes.getInteger(at: offset, as: UInt64.self) == firstWord,
            bytes.getInteger(at: offset + 24, as: UInt64.self) == UInt64(length - 32),
            let sequence = bytes.getInteger(at: offset + 8, as: UInt64.self),
            let sent = bytes.getInteger(at: offset + 16, as: UInt64.self)
        else {
            corrupted += 1
            return
        }
        received += 1
        byteCount += length
        if sequence >= next { next = sequence + 1 } else { reordered += 1 }
        let transit = now &- Int64(bitPattern: sent)
        if let previous { jitter += abs(transit - previous) - ((jitter + 8) >> 4) }
        previous = transit
    }
}
