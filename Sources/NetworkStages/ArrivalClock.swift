import CBatchIO
import PipelineCore

/// Run time at the moment of a read.
///
/// A turn's `now` was taken before it: bytes that come while it runs would be logged as there before they passed the wire.
/// The machine's clock and run time differ by a constant; what it is shows in the turn that began with the least delay.
struct ArrivalClock {
    private var difference = Int64.max

    /// - Parameter turn: The turn's `now`.
    /// - Returns: Run time now, at most as late as it is; never before the turn's.
    mutating func now(in turn: Timestamp) -> Timestamp {
        let machine = Int64(bitPattern: cbatchio_mono_ns())
        difference = min(difference, machine &- turn.nanoseconds)
        return Timestamp(nanoseconds: machine &- difference)
    }

    /// Notes when a turn began, before anything has been done in it.
    mutating func begin(_ turn: Timestamp) { _ = now(in: turn) }
}
