public import PipelineCore
public import Playout

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// The index of a movie in a local file.
public enum MovieFile {
    /// The map of the file at `path`: nothing can be played before its index has come in order.
    public static func map(of path: String) throws(StageError) -> MovieMap {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw StageError(.invalidInput, "the movie '\(path)' cannot be read", errno: errno)
        }
        defer { close(descriptor) }
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else {
            throw StageError(.invalidInput, "the movie '\(path)' cannot be read", errno: errno)
        }
        do throws(MP4Error) {
            let found = try MovieMapBuilder.read(objectByteCount: UInt64(status.st_size)) { offset, count in
                var bytes = [UInt8](repeating: 0, count: count)
                let got = unsafe pread(descriptor, &bytes, count, off_t(offset))
                return got > 0 ? Array(bytes.prefix(got)) : []
            }
            guard let (movie, indexEnd) = found else {
                throw MP4Error(at: UInt64(status.st_size), "the file has no 'moov' box, which is an MP4's index")
            }
            return movie.map(indexEnd: indexEnd)
        } catch {
            throw StageError(.invalidInput, "'\(path)' is no MP4 that can be played: \(error)")
        }
    }
}
