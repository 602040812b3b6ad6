public import Delivery
public import PipelineCore

/// A scheduler stage around a ``ChunkPolicy``: requests in, requests with a path out, hedges and cancels besides.
///
/// One generic class serves every policy, so a new policy is one file with the rule in it and one line of registration.
public final class ChunkScheduler<Policy: ChunkPolicy>: Scheduler, Learner, Reporter, Summarizing {
    public static var typeName: String { Policy.typeName }
    public typealias Options = Policy.Options

    public static func demands(of options: Options) -> StageDemands {
        var demands = StageDemands()
        demands.needsSources = true
        return demands
    }

    public static func problems(of options: Options, with sources: [Source]) -> [String] {
        Policy.problems(of: options, with: sources)
    }

    private var board: ChunkBoard

    public init(options: Options, context: StageContext) {
        board = ChunkBoard(policy: Policy(options: options, sources: context.sources), sources: context.sources)
    }

    public func schedule(_ input: inout PacketBatch, into output: inout PacketBatch, at now: Timestamp) -> Wake {
        do {
            let requests = input.descriptors
            for index in requests.indices { board.add(requests[index]) }
        }
        input.removeAll()
        let wake = board.step(at: now)
        let count = min(board.actions.count, output.freeCapacity)
        for action in board.actions.prefix(count) { output.append(action) }
        board.removeFirst(actions: count)
        return board.actions.isEmpty ? wake : .immediately
    }

    public func learn(_ report: Report) { board.learn(report) }
    public func nextReport() -> Report? { board.nextReport() }

    public func summary() -> [(key: String, value: SummaryValue)] {
        [
            (key: "hedges", value: .integer(Int64(board.hedgeCount))),
            (key: "retries", value: .integer(Int64(board.retryCount))),
        ]
    }
}
