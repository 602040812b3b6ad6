import CBatchIO
import Delivery
import PipelineCore
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// An open file that is served.
final class ServedObject {
    /// The same file with the same content has the same key.
    struct Key: Hashable, Sendable {
        var device: UInt64
        var inode: UInt64
        var byteCount: UInt64
        var modifiedSeconds: Int64
        var modifiedNanoseconds: Int64
    }
    let descriptor: CInt
    let key: Key

    init(descriptor: CInt, key: Key) {
        self.descriptor = descriptor
        self.key = key
    }

    deinit { close(descriptor) }

    /// What a client is told of it.
    func offer(_ digests: ObjectDigests?) -> Offer {
        let none = [UInt8](repeating: 0, count: 32)
        return Offer(
            byteCount: key.byteCount,
            modified: key.modifiedSeconds,
            blockByteCount: UInt32(blockByteCount),
            digest: digests?.whole ?? none,
            root: digests?.root ?? none
        )
    }
}

/// The files of one folder, by name, and their digests, which are computed once, off the lane.
final class ObjectStore {
    /// Digests under way or done.
    private enum Digests {
        case computing
        case ready(ObjectDigests)
        /// The file could not be read to its end.
        case failed
    }
    /// What the threads hand over.
    private final class Inbox: Sendable {
        let results = Mutex<[(ServedObject.Key, ObjectDigests?)]>([])
    }

    private(set) var refusals: [ObjectName.Refusal: Int64] = [:]
    /// The digests that were computed.
    private(set) var digestCount: Int64 = 0
    private let folder: String
    private var open: [String: ServedObject] = [:]
    private var digests: [ServedObject.Key: Digests] = [:]
    private let inbox = Inbox()
    /// A pipe: the threads write a byte into it when they are done.
    private var ends: [CInt] = [-1, -1]

    /// - Parameter folder: Absolute, and there.
    init(folder: String) throws(StageError) {
        guard let real = Self.realPath(folder) else {
            throw StageError(
                .invalidInput,
                "the folder '\(folder)' cannot be opened: \(Socket.message(errno))",
                errno: errno
            )
        }
        var status = stat()
        guard unsafe stat(real, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
            throw StageError(.invalidInput, "'\(folder)' is not a folder")
        }
        self.folder = real
        guard unsafe pipe(&ends) == 0 else {
            throw StageError(.systemCall, "cannot make a pipe: \(Socket.message(errno))", errno: errno)
        }
        for end in ends { Socket.prepare(end) }
    }

    deinit { for end in ends where end >= 0 { close(end) } }

    /// Readable when digests have been computed.
    var wakeDescriptor: CInt { ends[0] }

    private static func realPath(_ path: String) -> String? {
        guard let real = unsafe realpath(path, nil) else { return nil }
        defer { unsafe free(real) }
        return unsafe String(cString: real)
    }

    /// Opens the object of a name that came from the network.
    ///
    /// Links may lead about within the folder, not out of it.
    func object(named bytes: [UInt8]) throws(ObjectName.Refusal) -> ServedObject {
        do throws(ObjectName.Refusal) {
            return try find(try ObjectName(bytes))
        } catch {
            refusals[error, default: 0] += 1
            throw error
        }
    }

    private func find(_ name: ObjectName) throws(ObjectName.Refusal) -> ServedObject {
        guard let real = Self.realPath(folder + "/" + name.text) else { throw .missing }
        guard real.hasPrefix(folder == "/" ? "/" : folder + "/") else { throw .linkOutside }
        let descriptor = Libc.open(real, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else { throw .missing }
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw .notAFile
        }
        let key = ServedObject.Key(
            device: UInt64(status.st_dev),
            inode: UInt64(status.st_ino),
            byteCount: UInt64(status.st_size),
            modifiedSeconds: Int64(status.st_mtim.tv_sec),
            modifiedNanoseconds: Int64(status.st_mtim.tv_nsec)
        )
        if let known = open[real], known.key == key {
            close(descriptor)
            return known
        }
        // A served folder has many files and few that are asked for at once.
        if open.count > 256 { open.removeAll() }
        let object = ServedObject(descriptor: descriptor, key: key)
        open[real] = object
        return object
    }

    /// The digests of an object, if they are there. Their computation begins at the first call.
    ///
    /// - Returns: `nil` while they are being computed.
    /// - Throws: If the file cannot be read to its end.
    func digests(of object: ServedObject) throws(StageError) -> ObjectDigests? {
        switch digests[object.key] {
        case .ready(let known): return known
        case .computing: return nil
        case .failed: throw StageError(.invalidInput, "the file cannot be read to its end, or it changes")
        case nil: break
        }
        if digests.count > 1_024 { digests = digests.filter { if case .computing = $0.value { true } else { false } } }
        let (key, inbox, wake) = (object.key, inbox, dup(ends[1]))
        let descriptor = dup(object.descriptor)
        digests[key] = .computing
        try BackgroundThread.start {
            let found = Self.compute(descriptor, byteCount: key.byteCount)
            close(descriptor)
            inbox.results.withLock { $0.append((key, found)) }
            var byte: UInt8 = 0
            _ = unsafe write(wake, &byte, 1)
            close(wake)
        }
        return nil
    }

    private static func compute(_ descriptor: CInt, byteCount: UInt64) -> ObjectDigests? {
        var builder = DigestBuilder()
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        var offset: UInt64 = 0
        while offset < byteCount {
            let got = unsafe pread(descriptor, &buffer, buffer.count, off_t(offset))
            guard got > 0 else { return nil }
            builder.append(got == buffer.count ? buffer : Array(buffer.prefix(got)))
            offset += UInt64(got)
        }
        return offset == byteCount ? builder.finish() : nil
    }

    /// Takes what the threads have computed.
    ///
    /// - Returns: Whether there was something.
    func collect() -> Bool {
        let found = inbox.results.withLock { results in
            defer { results.removeAll() }
            return results
        }
        guard !found.isEmpty else { return false }
        var bytes = [UInt8](repeating: 0, count: 64)
        while unsafe read(ends[0], &bytes, bytes.count) > 0 {}
        for (key, digests) in found {
            digestCount += 1
            self.digests[key] = digests.map { .ready($0) } ?? .failed
        }
        return true
    }

    /// What was refused, by reason.
    var summary: [(key: String, value: SummaryValue)] {
        ObjectName.Refusal.allCases.map { (key: "names_\($0.rawValue)", value: .integer(refusals[$0] ?? 0)) }
            + [(key: "digests_computed", value: .integer(digestCount))]
    }
}
