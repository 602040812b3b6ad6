import NetworkStages
import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// One end's side of a control connection: whole lines in, whole lines out, with a limit on both and on the waiting.
///
/// Used by one thread, which it blocks.
final class ControlConnection {
    let descriptor: CInt
    /// The most bytes of a line.
    var limit: Int
    private var pending: [UInt8] = []
    private var searched = 0
    private var isEnded = false

    init(_ descriptor: CInt, limit: Int) {
        self.descriptor = descriptor
        self.limit = limit
        var on: CInt = 1
        unsafe setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &on, socklen_t(MemoryLayout<CInt>.size))
    }

    deinit { Libc.close(descriptor) }

    /// Sends a message, or gives up after ten seconds without progress.
    func send(_ message: ControlMessage) throws(ControlFault) {
        let line = message.line
        var place = 0
        while place < line.count {
            let sent = unsafe line[place...].withUnsafeBytes { rest in
                unsafe Libc.send(descriptor, rest.baseAddress, rest.count, CInt(MSG_NOSIGNAL))
            }
            if sent > 0 {
                place += sent
                continue
            }
            guard errno == EAGAIN || errno == EINTR else {
                throw ControlFault("the control connection broke: \(Socket.message(errno))")
            }
            guard wait(for: POLLOUT, nanoseconds: 10_000_000_000) else {
                throw ControlFault("the other end does not read its control connection")
            }
        }
    }

    /// The next message, if there is one within the time; `nil` if not.
    ///
    /// - Throws: When the connection has ended, or what came is no message.
    func receive(within nanoseconds: Int64) throws(ControlFault) -> ControlMessage? {
        let deadline = monotonicNow() + nanoseconds
        while true {
            if let end = pending[searched...].firstIndex(of: UInt8(ascii: "\n")) {
                let line = pending[..<end]
                let message = try ControlMessage(line: line)
                pending.removeSubrange(...end)
                searched = 0
                return message
            }
            searched = pending.count
            guard pending.count <= limit else {
                throw ControlFault("the other end sent a line of more than \(limit) bytes")
            }
            if isEnded { throw ControlFault("the control connection was closed by the other end") }
            let left = deadline - monotonicNow()
            guard wait(for: POLLIN, nanoseconds: max(0, left)) else { return nil }
            var part = [UInt8](repeating: 0, count: 65_536)
            let got = unsafe part.withUnsafeMutableBytes { unsafe Libc.read(descriptor, $0.baseAddress, $0.count) }
            if got > 0 {
                pending += part[..<got]
            } else if got == 0 {
                isEnded = true
            } else if errno != EAGAIN, errno != EINTR {
                throw ControlFault("the control connection broke: \(Socket.message(errno))")
            }
        }
    }

    /// The next message, which has to be of a kind.
    func expect(_ kind: ControlMessage.Kind, within nanoseconds: Int64) throws(ControlFault) -> ControlMessage {
        guard let message = try receive(within: nanoseconds) else {
            throw ControlFault("no answer of the other end within \(nanoseconds / 1_000_000_000) s")
        }
        if message.kind == .refused || message.kind == .error {
            throw ControlFault(message.reason ?? "the other end refused without saying why")
        }
        guard message.kind == kind else {
            throw ControlFault("expected '\(kind.rawValue)' of the other end, found '\(message.kind.rawValue)'")
        }
        return message
    }

    private func wait(for events: CInt, nanoseconds: Int64) -> Bool {
        var request = pollfd(fd: descriptor, events: Int16(events), revents: 0)
        return unsafe poll(&request, 1, CInt(clamping: (nanoseconds + 999_999) / 1_000_000)) > 0
    }
}

/// Nanoseconds of CLOCK_MONOTONIC.
func monotonicNow() -> Int64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

/// Nanoseconds of CLOCK_REALTIME.
func realNow() -> Int64 { Int64(clamping: Socket.realtimeNanoseconds()) }

/// Tells this kernel from all others: its boot and its time namespace's offset do not change while it runs.
func hostIdentity() -> String {
    (try? Libc.text(of: "/proc/sys/kernel/random/boot_id", limit: 256))?.filter { $0.isHexDigit || $0 == "-" } ?? ""
}
