import CPolling
import PipelineCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Waits on the descriptors of all stages of one lane. One per lane, owned by its thread.
@safe
final class Poller {
    private let set: OpaquePointer
    private var owners: [CInt: Descriptors] = [:]
    private var events = [cpolling_event](repeating: cpolling_event(), count: 256)

    init() throws(StageError) {
        guard let set = unsafe cpolling_create() else {
            throw StageError(.resourceExhausted, "no descriptor is left for a lane to wait with")
        }
        unsafe self.set = set
    }

    deinit { unsafe cpolling_destroy(set) }

    /// Waits until a descriptor is ready or the time is over, and tells their owners what is ready.
    ///
    /// - Parameter nanoseconds: Zero or less looks without waiting.
    func wait(for stages: [Descriptors], nanoseconds: Int64) throws(StageError) {
        for stage in stages {
            stage.clearReady()
            guard stage.hasChanges else { continue }
            for change in stage.takeChanges() { try apply(change, of: stage) }
        }
        // A lane that only spins has nothing to ask the system.
        if owners.isEmpty, nanoseconds <= 0 { return }
        let count = unsafe cpolling_wait(set, &events, CInt(events.count), max(nanoseconds, 0))
        guard count >= 0 else { throw StageError(.systemCall, "waiting on a lane's descriptors", errno: -count) }
        for event in events.prefix(Int(count)) {
            owners[event.descriptor]?.markReady(event.descriptor, for: .init(rawValue: UInt8(event.events)))
        }
    }

    private func apply(_ change: Descriptors.Change, of owner: Descriptors) throws(StageError) {
        switch change {
        case .add(let descriptor, let interest), .modify(let descriptor, let interest):
            owners[descriptor] = owner
            let status = unsafe cpolling_set(set, descriptor, UInt32(interest.rawValue))
            // A descriptor that was closed before its turn came will be forgotten by its stage.
            guard status == 0 || status == -EBADF else {
                throw StageError(.systemCall, "waiting on descriptor \(descriptor)", errno: -status)
            }
        case .remove(let descriptor):
            guard owners[descriptor] === owner else { return }
            owners[descriptor] = nil
            unsafe cpolling_remove(set, descriptor)
        }
    }
}
