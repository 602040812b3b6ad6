import Dispatch
import Foundation
import PipelineRuntime

/// SIGINT and SIGTERM end a run in good order; the second one ends it at once.
final class Signals {
    private let sources: [any DispatchSourceSignal]

    /// From now on signals go to `control`, until this object goes away.
    init(_ control: RunControl) {
        sources = [SIGINT, SIGTERM].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler {
                if control.state == .running { control.drain() } else { control.stop() }
            }
            source.resume()
            return source
        }
        // A reader that went away is an error of the write, not the end of the program.
        signal(SIGPIPE, SIG_IGN)
    }

    deinit { for source in sources { source.cancel() } }

    /// Waits for SIGINT or SIGTERM, or until so many seconds have passed.
    static func first(within seconds: Double?) async {
        let control = RunControl()
        let signals = Signals(control)
        defer { withExtendedLifetime(signals) {} }
        let end = seconds.map { ContinuousClock.now.advanced(by: .seconds($0)) }
        while control.state == .running, end.map({ ContinuousClock.now < $0 }) ?? true {
            try? await Task.sleep(for: .milliseconds(20))
        }
    }
}
