#if Pcap
import CPcap
import CaptureFiles
import PipelineCore

#if canImport(Glibc)
import Glibc
#endif

/// How an interface is to be captured.
package struct PcapSettings: Sendable {
    package var interface = "lo"
    /// What is written into the capture: `tx`, `rx` or `both`.
    package var role = "both"
    package var snapLength = 128
    /// Bytes of the kernel's ring: about 220 for each packet of 128 captured bytes.
    package var buffer = 32 << 20
    /// Milliseconds after which a block of the ring that is not full is handed over.
    package var timeout = 10
    package var filter = "udp or tcp"
    package var isPromiscuous = false
    package var processor: Int?
    package init() {}
}

/// An interface open for capture, with its filter set: libpcap's handle and its counters in 64 bits.
@safe
final class PcapHandle {
    let raw: OpaquePointer
    let settings: PcapSettings
    let hasNanoseconds: Bool
    /// What is not as it was asked for.
    private(set) var warnings: [String] = []
    private(set) var received: UInt64 = 0
    private(set) var dropped: UInt64 = 0
    private(set) var interfaceDropped: UInt64 = 0
    private var last = pcap_stat()

    /// - Parameter filter: The whole filter expression.
    init(_ settings: PcapSettings, filter: String) throws(StageError) {
        self.settings = settings
        var text = [CChar](repeating: 0, count: Int(PCAP_ERRBUF_SIZE))
        guard let handle = unsafe pcap_create(settings.interface, &text) else {
            throw StageError(.systemCall, "cannot capture at '\(settings.interface)': \(Self.string(text))")
        }
        unsafe raw = handle
        unsafe pcap_set_snaplen(handle, CInt(settings.snapLength))
        unsafe pcap_set_promisc(handle, settings.isPromiscuous ? 1 : 0)
        unsafe pcap_set_timeout(handle, CInt(settings.timeout))
        // A ring of immediate mode holds 32 packets of the default length.
        unsafe pcap_set_immediate_mode(handle, 0)
        unsafe pcap_set_buffer_size(handle, CInt(clamping: settings.buffer))
        hasNanoseconds = unsafe pcap_set_tstamp_precision(handle, CInt(PCAP_TSTAMP_PRECISION_NANO)) == 0
        if !hasNanoseconds { warnings.append("\(settings.interface) stamps in microseconds only") }
        let status = unsafe pcap_activate(handle)
        if status < 0 { throw Self.refusal(settings.interface, status, unsafe Self.error(of: handle)) }
        if status > 0 { warnings.append("\(settings.interface): \(unsafe Self.error(of: handle))") }
        if settings.interface == "any" { unsafe pcap_set_datalink(handle, DLT_LINUX_SLL2) }
        // What came before the filter was set is counted by the kernel and never delivered: nothing is let in until the
        // counters have been read.
        try unsafe Self.set("less 1", handle)
        unsafe pcap_setnonblock(handle, 1, &text)
        usleep(UInt32(2_000 * settings.timeout))
        while unsafe pcap_dispatch(handle, -1, { _, _, _ in }, nil) > 0 {}
        readStatistics()
        (received, dropped, interfaceDropped) = (0, 0, 0)
        try unsafe Self.set(filter, handle)
        // `inbound` in a filter would lose the ring's first block; the socket option does not.
        if settings.interface == "lo" {
            let status = unsafe cpcap_ignore_outgoing(pcap_fileno(handle))
            if status < 0 { warnings.append("outgoing packets cannot be left out: \(Self.message(-status))") }
        }
    }

    deinit { unsafe pcap_close(raw) }

    var descriptor: CInt { unsafe pcap_fileno(raw) }
    var errorText: String { unsafe Self.error(of: raw) }

    /// The link type as files have it.
    var linkType: UInt16 {
        let type = UInt16(clamping: unsafe pcap_datalink(raw))
        return type == 12 ? LinkType.raw : type
    }

    /// libpcap counts in 32 bits; once a second is often enough to see them wrap.
    func readStatistics() {
        var now = pcap_stat()
        guard unsafe pcap_stats(raw, &now) == 0 else { return }
        received &+= UInt64(now.ps_recv &- last.ps_recv)
        dropped &+= UInt64(now.ps_drop &- last.ps_drop)
        interfaceDropped &+= UInt64(now.ps_ifdrop &- last.ps_ifdrop)
        last = now
    }

    static func time(_ header: pcap_pkthdr, hasNanoseconds: Bool) -> Int64 {
        Int64(header.ts.tv_sec) * 1_000_000_000 + Int64(header.ts.tv_usec) * (hasNanoseconds ? 1 : 1_000)
    }

    private static func string(_ text: [CChar]) -> String {
        String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    private static func error(of handle: OpaquePointer) -> String { unsafe String(cString: pcap_geterr(handle)) }
    static func message(_ number: CInt) -> String { unsafe String(cString: strerror(number)) }

    private static func refusal(_ interface: String, _ status: CInt, _ words: String) -> StageError {
        switch status {
        case PCAP_ERROR_PERM_DENIED:
            StageError(
                .systemCall,
                "no permission to capture at '\(interface)': run as root, or grant it to the program once with "
                    + "'sudo setcap cap_net_raw+ep PATH/tributary'"
            )
        case PCAP_ERROR_NO_SUCH_DEVICE:
            StageError(
                .systemCall,
                "no interface is called '\(interface)'; there are \(interfaces().joined(separator: ", "))"
            )
        case PCAP_ERROR_IFACE_NOT_UP: StageError(.systemCall, "the interface '\(interface)' is not up")
        default: StageError(.systemCall, "cannot capture at '\(interface)': \(words)")
        }
    }

    /// Names of the machine's interfaces.
    static func interfaces() -> [String] {
        var names: [String] = []
        guard let list = unsafe if_nameindex() else { return names }
        defer { unsafe if_freenameindex(list) }
        var place = unsafe list
        while unsafe place.pointee.if_index != 0 {
            unsafe names.append(String(cString: place.pointee.if_name))
            unsafe place += 1
        }
        return names
    }

    /// The kernel takes so many instructions; a longer filter would run, without a word, in this program.
    private static let mostInstructions = 4_096
    private static let longestFilter = 8_192

    private static func set(_ filter: String, _ handle: OpaquePointer) throws(StageError) {
        guard filter.utf8.count <= longestFilter else {
            throw StageError(
                .invalidInput,
                "a filter of \(filter.utf8.count) characters; at most \(longestFilter) are taken"
            )
        }
        for word in ["inbound", "outbound", "ifindex", "protochain"] where filter.contains(word) {
            throw StageError(
                .invalidInput,
                "the filter uses '\(word)', which the kernel does not run as it should; leave it out"
            )
        }
        var program = unsafe bpf_program()
        guard unsafe pcap_compile(handle, &program, filter, 1, UInt32.max) == 0 else {
            throw StageError(.invalidInput, "the filter '\(filter)' is wrong: \(unsafe error(of: handle))")
        }
        defer { unsafe pcap_freecode(&program) }
        let count = unsafe Int(cpcap_instruction_count(&program))
        guard count <= mostInstructions else {
            throw StageError(
                .invalidInput,
                "the filter has \(count) instructions; the kernel takes \(mostInstructions)"
            )
        }
        guard unsafe pcap_setfilter(handle, &program) == 0 else {
            throw StageError(.systemCall, "the filter cannot be set: \(unsafe error(of: handle))")
        }
    }
}
#endif
