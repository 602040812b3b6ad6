import PipelineCore

/// A 95 % interval of a statistic of paired samples, by the percentile bootstrap over pairs (Efron, 1979).
///
/// Repeat k of two arms has the same seed, so what is resampled is the pair, never one side alone.
///
/// - Parameters:
///   - pairs: One pair for each repeat.
///   - resamples: How many samples of as many pairs are drawn, with replacement.
///   - seed: Fixes what is drawn.
///   - statistic: Of the pairs; the default is the median of the differences, second less first.
/// - Returns: `nil` for fewer than two pairs.
public func pairedBootstrap(
    _ pairs: [(Double, Double)],
    resamples: Int = 10_000,
    seed: UInt64 = 1,
    statistic: ([(Double, Double)]) -> Double = { median($0.map { $0.1 - $0.0 }) ?? 0 }
) -> ClosedRange<Double>? {
    guard pairs.count >= 2, resamples > 0 else { return nil }
    var generator = SeededGenerator(seed: seed)
    var drawn = pairs
    var values: [Double] = []
    values.reserveCapacity(resamples)
    for _ in 0..<resamples {
        for index in drawn.indices { drawn[index] = pairs[Int.random(in: 0..<pairs.count, using: &generator)] }
        values.append(statistic(drawn))
    }
    guard let low = quantile(values, 0.025), let high = quantile(values, 0.975) else { return nil }
    return low...high
}
