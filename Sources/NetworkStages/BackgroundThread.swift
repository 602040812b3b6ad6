package import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Work that blocks and so must not run on a lane: reading a whole file, writing to a disk.
package enum BackgroundThread {
    private final class Job {
        let body: () -> Void
        init(_ body: @escaping () -> Void) { self.body = body }
    }

    /// Runs `body` on a thread of its own.
    package static func start(_ body: @Sendable @escaping () -> Void) throws(StageError) {
        let job = unsafe Unmanaged.passRetained(Job(body))
        #if canImport(Glibc)
        var thread = pthread_t()
        let status = unsafe pthread_create(
            &thread,
            nil,
            { raw in
                if let raw = unsafe raw { unsafe Unmanaged<Job>.fromOpaque(raw).takeRetainedValue().body() }
                return nil
            },
            job.toOpaque()
        )
        #else
        var thread: pthread_t?
        let status = unsafe pthread_create(
            &thread,
            nil,
            { raw in
                unsafe Unmanaged<Job>.fromOpaque(raw).takeRetainedValue().body()
                return nil
            },
            job.toOpaque()
        )
        #endif
        guard status == 0 else {
            unsafe job.release()
            throw StageError(.resourceExhausted, "no thread could be started", errno: status)
        }
        #if canImport(Glibc)
        pthread_detach(thread)
        #else
        if let thread { pthread_detach(thread) }
        #endif
    }
}
