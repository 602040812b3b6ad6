import CBatchIO
public import PipelineCore
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Writes the movie to a file: pieces at their place, off the lane, renamed into place only when it is whole and right.
///
/// Until then it is called `<path>.part`. A run that ends early leaves that.
public final class FileSink: Sink, Learner, Summarizing {
    public static let typeName = "file"

    public struct Options: StageOptions {
        /// The file; a relative path is below the run's folder, or the configuration's if the run has none.
        public var path: String
        /// Whether a file that is there is overwritten.
        public var force: Bool

        public init(from reader: inout OptionReader) {
            path = reader.require("path", placeholder: "movie")
            force = reader.read("force", default: false)
        }
    }

    public static func demands(of options: Options) -> StageDemands {
        var demands = StageDemands()
        demands.needsBytes = true
        demands.needsRealTime = true
        return demands
    }

    private let options: Options
    private let path: String
    private var writer: FileWriter?
    /// What others may read of it meanwhile.
    private let arriving: ArrivingFile
    private var received = ByteRangeSet()
    private var objectByteCount: UInt64?
    private var isVerified = false
    private var isInPlace = false

    public init(options: Options, context: StageContext) {
        self.options = options
        path =
            options.path.hasPrefix("/") ? options.path : context.runFile(options.path) ?? context.resolve(options.path)
        arriving = ArrivingFile(path: path + ".part")
        context.files.post(arriving)
    }

    private var partPath: String { path + ".part" }

    public func start(at now: Timestamp) throws(StageError) {
        if !options.force, unsafe access(path, F_OK) == 0 {
            throw StageError(.outputFailed, "'\(path)' is there already; give 'force' to overwrite it")
        }
        let descriptor = Libc.open(partPath, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw StageError(.outputFailed, "cannot write '\(partPath)': \(Socket.message(errno))", errno: errno)
        }
        writer = try FileWriter(descriptor: descriptor, path: partPath, arriving: arriving)
    }

    public func consume(_ input: borrowing PacketBatch, at now: Timestamp) throws(StageError) -> Wake {
        guard let writer else { return .whenFed }
        let packets = input.descriptors
        for index in packets.indices {
            let packet = packets[index]
            switch packet.kind {
            case .data:
                let range = packet.objectOffset..<packet.objectEnd
                // What is there stays: it is what was checked, and a second copy never is.
                for hole in received.missing(in: range) {
                    let start = Int(hole.lowerBound - range.lowerBound)
                    let piece = input.payload(at: index).extracting(start..<start + hole.count)
                    try writer.write(piece, at: hole.lowerBound)
                }
                received.insert(range)
            case .retract:
                received.remove(packet.objectOffset..<packet.objectEnd)
                try writer.retract(packet.objectOffset..<packet.objectEnd)
            case .done, .request, .hedge, .cancel: break
            }
        }
        return .whenFed
    }

    public func learn(_ report: Report) {
        switch report {
        case .object(let byteCount):
            objectByteCount = byteCount
            arriving.update { $0.byteCount = byteCount }
        case .verified: isVerified = true
        default: break
        }
    }

    public func finish(at now: Timestamp) throws(StageError) {
        guard let writer else { return }
        self.writer = nil
        try writer.finish()
        guard isVerified, let objectByteCount, received.contiguousEnd == objectByteCount else { return }
        guard unsafe rename(partPath, path) == 0 else {
            throw StageError(.outputFailed, "cannot rename '\(partPath)': \(Socket.message(errno))", errno: errno)
        }
        isInPlace = true
        arriving.update { [path] in $0.path = path }
    }

    public func summary() -> [(key: String, value: SummaryValue)] {
        [
            (key: "path", value: .text(isInPlace ? path : partPath)),
            (key: "is_whole", value: .boolean(isInPlace)),
            (key: "bytes", value: .integer(Int64(clamping: received.byteCount))),
        ]
    }
}

/// A thread that writes pieces to a file, fed through a queue of bounded size.
///
/// The lane waits when the disk is that far behind: memory stays bounded, and the network is told by TCP.
private final class FileWriter: Sendable {
    private enum Piece: Sendable {
        case bytes([UInt8], at: UInt64)
        /// They were wrong: nobody is to read them until they come anew.
        case retraction(Range<UInt64>)
    }
    private struct State: Sendable {
        var pieces: [Piece] = []
        var byteCount = 0
        var isEnding = false
        var hasEnded = false
        var failure: StageError?
    }
    /// Bytes that may wait for the disk.
    private static let limit = 64 << 20
    private let state = Mutex(State())
    private let path: String
    private let arriving: ArrivingFile
    private let changed = Condition()

    init(descriptor: CInt, path: String, arriving: ArrivingFile) throws(StageError) {
        self.path = path
        self.arriving = arriving
        try BackgroundThread.start { [self] in
            run(descriptor)
            close(descriptor)
            state.withLock { $0.hasEnded = true }
            changed.signal()
        }
    }

    /// Takes a piece.
    ///
    /// - Throws: What went wrong with an earlier one.
    func write(_ bytes: RawSpan, at offset: UInt64) throws(StageError) {
        let copy = unsafe bytes.withUnsafeBytes { unsafe Array($0) }
        try take(.bytes(copy, at: offset), byteCount: copy.count)
    }

    /// Takes back what was written there before.
    func retract(_ range: Range<UInt64>) throws(StageError) { try take(.retraction(range), byteCount: 0) }

    private func take(_ piece: Piece, byteCount: Int) throws(StageError) {
        while true {
            let (failure, hasRoom) = state.withLock { state in
                if state.failure != nil { return (state.failure, false) }
                guard state.byteCount < Self.limit else { return (StageError?.none, false) }
                state.pieces.append(piece)
                state.byteCount += byteCount
                return (StageError?.none, true)
            }
            if let failure { throw failure }
            if hasRoom { return changed.signal() }
            changed.wait()
        }
    }

    /// Waits until everything is on its way to the disk.
    func finish() throws(StageError) {
        state.withLock { $0.isEnding = true }
        changed.signal()
        while !state.withLock({ $0.hasEnded }) { changed.wait() }
        if let failure = state.withLock({ $0.failure }) { throw failure }
    }

    private func run(_ descriptor: CInt) {
        while true {
            let (pieces, isEnding) = state.withLock { state in
                defer {
                    state.pieces = []
                    state.byteCount = 0
                }
                return (state.pieces, state.isEnding)
            }
            changed.signal()
            if pieces.isEmpty {
                if isEnding { return }
                changed.wait()
                continue
            }
            for piece in pieces {
                switch piece {
                case .bytes(let bytes, let offset):
                    guard write(bytes, at: offset, to: descriptor) else { return }
                    arriving.update { $0.received.insert(offset..<offset + UInt64(bytes.count)) }
                case .retraction(let range): arriving.update { $0.received.remove(range) }
                }
            }
        }
    }

    private func write(_ bytes: [UInt8], at offset: UInt64, to descriptor: CInt) -> Bool {
        var written = 0
        while written < bytes.count {
            let count = unsafe bytes.withUnsafeBytes {
                unsafe pwrite(descriptor, $0.baseAddress! + written, $0.count - written, off_t(offset) + off_t(written))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                let error = StageError(.outputFailed, "cannot write '\(path)': \(Socket.message(errno))", errno: errno)
                state.withLock { $0.failure = error }
                return false
            }
            written += count
        }
        return true
    }
}

/// Lets two threads wait for each other: wakes at a signal, or after 10 ms, whichever is first.
@safe
private final class Condition: @unchecked Sendable {
    // pthread's own types do the locking.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

    init() {
        unsafe pthread_mutex_init(mutex, nil)
        unsafe pthread_cond_init(condition, nil)
    }

    deinit {
        unsafe pthread_cond_destroy(condition)
        unsafe pthread_mutex_destroy(mutex)
        unsafe condition.deallocate()
        unsafe mutex.deallocate()
    }

    func signal() { unsafe pthread_cond_broadcast(condition) }

    func wait() {
        var limit = timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &limit)
        limit.tv_nsec += 10_000_000
        if limit.tv_nsec >= 1_000_000_000 {
            limit.tv_nsec -= 1_000_000_000
            limit.tv_sec += 1
        }
        unsafe pthread_mutex_lock(mutex)
        unsafe pthread_cond_timedwait(condition, mutex, &limit)
        unsafe pthread_mutex_unlock(mutex)
    }
}
