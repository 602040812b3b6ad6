#if Pcap
import CPcap
import CaptureFiles
import Delivery
package import PipelineCore
import Synchronization

#if canImport(Glibc)
import Glibc
#endif

/// A tap on an interface: a thread that writes what passes to a pcapng file, from before the first packet to after the last.
///
/// It is live when its own first probe has come through filter, ring and thread; it ends when its last probe has. The
/// thread gives up all privileges before it reads the first packet and allocates nothing for one.
@safe
package final class PcapTap: @unchecked Sendable {
    /// What the tap did, for a summary.
    package struct Outcome: Sendable {
        package var delivered: UInt64 = 0
        package var received: UInt64 = 0
        package var dropped: UInt64 = 0
        package var sawEnd = false
        package var warnings: [String] = []
        /// Why the capture is not whole, if it is not: the disk is full, privileges could not be given up.
        package var failure: String?
        package var unread: Int64 { Int64(received) - Int64(dropped) - Int64(delivered) }
    }

    private let settings: PcapSettings
    private let handle: PcapHandle
    private let writer: PcapngWriter
    private let interface: Int
    private let linkType: UInt16
    private let probe: Probe
    private let seenProbes = Atomic<Int>(0)
    private let isStopping = Atomic<Bool>(false)
    private let hasEnded = Atomic<Bool>(false)
    private let failure = Mutex<String?>(nil)
    private var thread = pthread_t()
    private var isRunning = false
    /// What the interface's queue had dropped before; negative if nobody can say.
    private let queueDropsBefore: Int64
    /// Of the capturing thread, while it runs.
    private var delivered: UInt64 = 0

    /// Opens and prepares the tap; nothing is captured yet.
    package init(_ settings: PcapSettings, path: String, application: String) throws(StageError) {
        self.settings = settings
        probe = try Probe(settings.interface)
        let filter = "(\(settings.filter)) or udp port \(probe.port)"
        handle = try PcapHandle(settings, filter: filter)
        linkType = handle.linkType
        queueDropsBefore = unsafe cpcap_queue_drops(settings.interface)
        do throws(CaptureFileError) {
            writer = try PcapngWriter(path, application: application)
        } catch { throw StageError(.outputFailed, "\(error)") }
        var description = CaptureInterface(
            linkType: linkType,
            snapLength: UInt32(settings.snapLength),
            resolution: .nanoseconds
        )
        description.name = settings.interface
        description.purpose = settings.role
        description.filter = filter
        description.system = "Linux"
        description.comments = ["probe port \(probe.port)"] + handle.warnings
        interface = writer.add(description)
    }

    // MARK: Running

    /// Starts the thread and waits until its own probe has come through.
    ///
    /// - Throws: ``StageError`` if no probe came within two seconds.
    package func start() throws(StageError) {
        let state = unsafe Unmanaged.passRetained(self).toOpaque()
        let status = unsafe pthread_create(
            &thread,
            nil,
            { raw in
                unsafe Unmanaged<PcapTap>.fromOpaque(raw!).takeRetainedValue().run()
                return nil
            },
            state
        )
        guard status == 0 else {
            unsafe Unmanaged<PcapTap>.fromOpaque(state).release()
            throw StageError(.resourceExhausted, "no thread for a capture", errno: status)
        }
        isRunning = true
        guard waitForProbe(patience: 2_000) else {
            _ = stop()
            let words = failure.withLock { $0 } ?? "its own probe did not come through the filter within 2 s"
            throw StageError(.systemCall, "the capture at '\(settings.interface)' is not live: \(words)")
        }
    }

    /// Sends probes until one more has been seen.
    private func waitForProbe(patience milliseconds: Int) -> Bool {
        let before = seenProbes.load(ordering: .acquiring)
        var waited = 0
        while waited < milliseconds, !hasEnded.load(ordering: .acquiring) {
            if waited % 50 == 0 { probe.send() }
            usleep(2_000)
            waited += 2
            if seenProbes.load(ordering: .acquiring) > before { return true }
        }
        return false
    }

    /// Waits until all that was captured has been written, ends the thread and closes the file.
    package func stop() -> Outcome {
        guard isRunning else { return outcome(sawEnd: false) }
        isRunning = false
        let sawEnd = waitForProbe(patience: max(250, 5 * settings.timeout))
        isStopping.store(true, ordering: .releasing)
        pthread_join(thread, nil)
        return outcome(sawEnd: sawEnd)
    }

    private func outcome(sawEnd: Bool) -> Outcome {
        var outcome = Outcome()
        (outcome.delivered, outcome.received, outcome.dropped) = (delivered, handle.received, handle.dropped)
        outcome.sawEnd = sawEnd
        outcome.warnings = handle.warnings
        outcome.failure = failure.withLock { $0 }
        return outcome
    }

    private func run() {
        defer { hasEnded.store(true, ordering: .releasing) }
        if let processor = settings.processor {
            let status = cpcap_pin(UInt32(clamping: processor))
            if status < 0 {
                failure.withLock { $0 = "cannot run on processor \(processor): \(PcapHandle.message(-status))" }
            }
        }
        var status = cpcap_drop_privileges()
        if status == 0, cpcap_has_privileges() != 0 { status = -EPERM }
        if status != 0 { failure.withLock { $0 = "privileges cannot be given up: \(PcapHandle.message(-status))" } }
        // A ring's descriptor needs none of them any more.
        var ready = pollfd(fd: handle.descriptor, events: Int16(POLLIN), revents: 0)
        var nextStatistics = Self.monotonic() + 1_000_000_000
        let me = unsafe Unmanaged.passUnretained(self).toOpaque().assumingMemoryBound(to: UInt8.self)
        var deadline: Int64?
        while true {
            unsafe poll(&ready, 1, CInt(settings.timeout))
            let count = unsafe pcap_dispatch(handle.raw, -1, PcapTap.take, me)
            if count < 0 {
                failure.withLock { $0 = handle.errorText }
                break
            }
            let now = Self.monotonic()
            if now >= nextStatistics {
                handle.readStatistics()
                writeStatistics()
                nextStatistics = now + 1_000_000_000
            }
            guard isStopping.load(ordering: .acquiring) else { continue }
            if deadline == nil {
                // The last probe is in: traffic that goes on does not keep the tap from ending.
                _ = cpcap_let_nothing_in(handle.descriptor)
                deadline = now + 2_000_000_000
            }
            handle.readStatistics()
            // All that the kernel took has been read, or it does not come.
            if handle.received &- handle.dropped <= delivered || now > deadline ?? 0 { break }
        }
        writeStatistics()
        do throws(CaptureFileError) { try writer.finish() } catch { failure.withLock { $0 = "\(error)" } }
    }

    /// A packet of the ring. Its bytes go to the file's buffer; nothing is allocated.
    private static let take: pcap_handler = { user, header, bytes in
        guard let user = unsafe user, let header = unsafe header, let bytes = unsafe bytes else { return }
        let tap = unsafe Unmanaged<PcapTap>.fromOpaque(UnsafeRawPointer(user)).takeUnretainedValue()
        let captured = unsafe Int(header.pointee.caplen)
        let span = unsafe RawSpan(_unsafeStart: UnsafeRawPointer(bytes), byteCount: captured)
        let time = unsafe PcapHandle.time(header.pointee, hasNanoseconds: tap.handle.hasNanoseconds)
        let original = unsafe Int(header.pointee.len)
        tap.delivered &+= 1
        tap.writer.append(interface: tap.interface, time: time, originalLength: original, bytes: span)
        if original <= Probe.longestFrame, tap.probe.isIn(span, originalLength: original, linkType: tap.linkType) {
            tap.seenProbes.add(1, ordering: .releasing)
        }
    }

    /// The counters, with a pair of both clocks: a step between two pairs is a clock that was set.
    private func writeStatistics() {
        let before = Self.monotonic()
        let real = Self.realtime()
        let after = Self.monotonic()
        var statistics = CaptureStatistics()
        statistics.received = handle.received
        statistics.systemDropped = handle.dropped
        // Only a promiscuous interface counts what it drops; 0 would be no evidence.
        if settings.isPromiscuous { statistics.interfaceDropped = handle.interfaceDropped }
        statistics.delivered = delivered
        var comment = "monotonic \((before + after) / 2)"
        let queueDrops = unsafe cpcap_queue_drops(settings.interface)
        if queueDropsBefore >= 0, queueDrops >= 0 { comment += " queue-dropped \(queueDrops - queueDropsBefore)" }
        writer.append(statistics, interface: interface, time: real, comment: comment)
    }

    private static func monotonic() -> Int64 { clock(CLOCK_MONOTONIC) }
    static func realtime() -> Int64 { clock(CLOCK_REALTIME) }
    private static func clock(_ id: clockid_t) -> Int64 {
        var time = timespec()
        unsafe clock_gettime(id, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
}

/// Datagrams of a tap's own, sent out of its interface, by which it knows that it sees what passes.
@safe
private final class Probe {
    let port: UInt16
    private let descriptor: CInt
    private let id: UInt32
    private let isLoopback: Bool
    private var sequence: UInt64 = 0
    /// Ethernet with a tag, IPv6 and UDP headers, and the payload.
    static let longestFrame = 18 + 40 + 8 + WireHeader.byteCount + 20

    init(_ interface: String) throws(StageError) {
        let descriptor = socket(AF_INET, CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw StageError(.systemCall, "no socket for a probe", errno: errno) }
        self.descriptor = descriptor
        isLoopback = interface == "lo" || interface == "any"
        id = UInt32.random(in: 1 ... .max)
        var on: CInt = 1
        unsafe setsockopt(descriptor, SOL_SOCKET, SO_BROADCAST, &on, socklen_t(MemoryLayout<CInt>.size))
        if !isLoopback { _ = unsafe cpcap_bind_to_device(descriptor, interface) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        if isLoopback { address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian }
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let status = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe bind(descriptor, $0, length) | getsockname(descriptor, $0, &length)
            }
        }
        port = UInt16(bigEndian: address.sin_port)
        guard status == 0 else {
            // The descriptor is closed with this object.
            let number = errno
            throw StageError(.systemCall, "no port for a probe: \(PcapHandle.message(number))", errno: number)
        }
    }

    deinit { close(descriptor) }

    /// Sends one: to itself on the loopback, to everybody on the link elsewhere.
    func send() {
        var bytes: [UInt8] = []
        WireHeader(.ping, flow: id, sequence: sequence, sendTime: 0, payloadByteCount: 0).append(to: &bytes)
        sequence += 1
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = (isLoopback ? port : 9).bigEndian
        address.sin_addr.s_addr = (isLoopback ? UInt32(0x7F00_0001) : UInt32.max).bigEndian
        unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { to in
                unsafe bytes.withUnsafeBytes {
                    _ = unsafe sendto(
                        descriptor,
                        $0.baseAddress,
                        $0.count,
                        CInt(MSG_DONTWAIT),
                        to,
                        socklen_t(MemoryLayout<sockaddr_in>.size)
                    )
                }
            }
        }
    }

    /// Whether a packet is one of these.
    func isIn(_ bytes: RawSpan, originalLength: Int, linkType: UInt16) -> Bool {
        let packet = PacketDecoder.decode(bytes, originalLength: originalLength, linkType: linkType)
        guard packet.isUDP, packet.sourcePort == port, packet.payloadOffset <= bytes.byteCount else { return false }
        guard let header = try? WireHeader.read(bytes, at: packet.payloadOffset) else { return false }
        return header.type == .ping && header.flow == id
    }
}
#endif
