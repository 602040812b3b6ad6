/// The quantile of a sample by linear interpolation between order statistics (Hyndman and Fan's type 7, R's default).
///
/// - Parameter fraction: 0 is the least, 0.5 the median, 1 the greatest.
/// - Returns: `nil` for an empty sample.
public func quantile(_ values: [Double], _ fraction: Double) -> Double? {
    let sorted = values.sorted()
    guard let first = sorted.first, let last = sorted.last else { return nil }
    let place = Double(sorted.count - 1) * min(max(fraction, 0), 1)
    let below = Int(place)
    guard below + 1 < sorted.count else { return fraction <= 0 ? first : last }
    return sorted[below] + (place - Double(below)) * (sorted[below + 1] - sorted[below])
}

/// The median of a sample; `nil` if it is empty.
public func median(_ values: [Double]) -> Double? { quantile(values, 0.5) }
