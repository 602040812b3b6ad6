import Foundation
import Lab
import PipelineCore

/// Where people look: results on stdout, everything else on stderr.
enum Terminal {
    static func result(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }
    static func error(_ line: String) { FileHandle.standardError.write(Data((line + "\n").utf8)) }

    /// Whether stderr is a terminal that can move its cursor.
    static var isInteractive: Bool {
        isatty(2) == 1 && ProcessInfo.processInfo.environment["TERM"] != "dumb"
    }
}

/// Shows on stderr what a run is doing: a block that is rewritten on a terminal, otherwise one line a second.
actor ProgressDisplay {
    private let isQuiet: Bool
    private var boards: [(title: String, board: ProgressBoard)] = []
    private var blockLineCount = 0
    private var task: Task<Void, Never>?
    private let began = ContinuousClock.now

    init(isQuiet: Bool) { self.isQuiet = isQuiet }

    func add(_ title: String, _ board: ProgressBoard) {
        boards.append((title, board))
        guard !isQuiet, task == nil else { return }
        let period: Duration = Terminal.isInteractive ? .milliseconds(200) : .seconds(1)
        task = Task { [weak self] in
            while !Task.isCancelled {
                try? await Task.sleep(for: period)
                await self?.draw()
            }
        }
    }

    /// The trial is over; says so on a line that stays.
    func remove(_ title: String, saying line: String?) {
        boards.removeAll { $0.title == title }
        guard !isQuiet else { return }
        erase()
        if let line { Terminal.error(line) }
    }

    func end() {
        task?.cancel()
        task = nil
        if !isQuiet { erase() }
    }

    private func erase() {
        guard blockLineCount > 0 else { return }
        FileHandle.standardError.write(Data("\u{1B}[\(blockLineCount)A\u{1B}[J".utf8))
        blockLineCount = 0
    }

    private func draw() {
        let states = boards.map { ($0.title, $0.board.state) }
        if Terminal.isInteractive {
            let lines = states.flatMap { title, state in block(title, state) }
            guard !lines.isEmpty else { return }
            erase()
            Terminal.error(lines.joined(separator: "\n"))
            blockLineCount = lines.count
        } else {
            for (title, state) in states { Terminal.error(line(title, state)) }
        }
    }

    private func block(_ title: String, _ state: ProgressBoard.State) -> [String] {
        let total = max(state.objectByteCount, state.sources.map(\.byteCount).reduce(0, +))
        let rows = state.sources.map { source in
            let share = total > 0 ? min(1, Double(source.byteCount) / Double(total)) : 0
            let filled = Int((share * 24).rounded(.down))
            let bar = String(repeating: "█", count: filled) + String(repeating: "·", count: 24 - filled)
            let name = source.name.padding(toLength: 10, withPad: " ", startingAt: 0)
            return
                "  \(name) \(bar) \(decimal(Double(source.byteCount) / 1e6, 2)) MB  \(decimal(source.rate / 1e6, 2)) Mbit/s"
        }
        return ["\(title)  \(status(state))"] + rows
    }

    private func line(_ title: String, _ state: ProgressBoard.State) -> String {
        let bytes = state.sources.map { "\($0.name) \(decimal(Double($0.byteCount) / 1e6, 2)) MB" }
        return "[\(title)] \(bytes.joined(separator: "  "))  \(status(state))"
    }

    private func status(_ state: ProgressBoard.State) -> String {
        guard let playback = state.playback else { return "\(decimal(Double(state.now.nanoseconds) / 1e9, 1)) s" }
        return "\(playback.state) at \(decimal(Double(playback.playhead) / 1e9, 1)) s  "
            + "buffer \(decimal(Double(playback.bufferLevel) / 1e9, 1)) s  stalls \(state.stallCount)  "
            + "elapsed \(decimal(Double(state.now.nanoseconds) / 1e9, 1)) s"
    }
}

/// A number with so many digits after the point.
func decimal(_ value: Double, _ digits: Int) -> String {
    String(format: "%.\(digits)f", value)
}
