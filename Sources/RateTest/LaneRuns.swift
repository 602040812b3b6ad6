import NetworkStages
import PipelineCore
import PipelineRuntime
import Synchronization

/// Lanes that run on threads of their own while the thread that started them talks to the other end.
final class LaneRuns: Sendable {
    private struct State {
        var running = 0
        var faults: [UInt32: String] = [:]
    }
    private let state = Mutex(State())
    let control = RunControl()

    /// Starts a lane.
    func start(
        flow: UInt32,
        spin: Duration,
        duration: Duration,
        _ make: @escaping @Sendable () -> Lane
    ) throws(StageError) {
        state.withLock { $0.running += 1 }
        do throws(StageError) {
            try BackgroundThread.start { [self] in
                let outcome = RealTimeDriver(spinWindow: spin).runLane(
                    make(),
                    origin: RealTimeDriver.monotonicNanoseconds(),
                    limits: RunLimits(duration: duration, drain: .milliseconds(500))
                ) { control.state }
                state.withLock {
                    $0.running -= 1
                    if let error = outcome.errors.first { $0.faults[flow] = error.message }
                }
            }
        } catch {
            state.withLock { $0.running -= 1 }
            throw error
        }
    }

    /// Whether all have ended.
    var areDone: Bool { state.withLock { $0.running == 0 } }
    func fault(of flow: UInt32) -> String? { state.withLock { $0.faults[flow] } }
    /// Why the first that failed did.
    var firstFault: String? { state.withLock { $0.faults.sorted { $0.key < $1.key }.first?.value } }
}
