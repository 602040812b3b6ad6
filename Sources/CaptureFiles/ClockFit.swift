/// A line under the delays of one direction between two hosts: the delay that no queue has added, as it drifts.
///
/// The lower convex hull of the delays (Moon, Skelly, Towsley 1999): its edge over the mean time is the line under all
/// points that is nearest to them. Queues only add, so it follows the clocks where a least-squares line follows the load.
/// Units: nanoseconds.
public struct DelayFloor: Sendable {
    /// When the line's value is ``least``, on the sender's clock.
    public let origin: Int64
    /// The line at ``origin``, in nanoseconds.
    public let least: Double
    /// Its rise: nanoseconds a nanosecond. The receiver's clock runs that much faster.
    public let slope: Double
    /// Corners of the hull.
    public let cornerCount: Int

    /// - Parameter packets: Times of sending and of receipt, each on its host's clock.
    /// - Returns: `nil` of fewer than two packets, or if all were sent at one time.
    public init?(_ packets: [(sent: Int64, received: Int64)]) {
        guard packets.count > 1 else { return nil }
        var points = packets
        if !zip(points, points.dropFirst()).allSatisfy({ $0.sent <= $1.sent }) { points.sort { $0.sent < $1.sent } }
        let start = points[0].sent
        let first = points[0].received &- points[0].sent
        var hull: [(x: Double, y: Double)] = []
        var sum = 0.0
        for point in points {
            let x = Double(point.sent &- start)
            let y = Double((point.received &- point.sent) &- first)
            sum += x
            if let last = hull.last, last.x == x {
                if last.y <= y { continue }
                hull.removeLast()
            }
            while hull.count > 1 {
                let (a, b) = (hull[hull.count - 2], hull[hull.count - 1])
                guard (b.y - a.y) * (x - a.x) >= (y - a.y) * (b.x - a.x) else { break }
                hull.removeLast()
            }
            hull.append((x, y))
        }
        guard hull.count > 1 else { return nil }
        let mean = sum / Double(points.count)
        let index = max(1, hull.firstIndex { $0.x >= mean } ?? hull.count - 1)
        let (a, b) = (hull[index - 1], hull[index])
        slope = (b.y - a.y) / (b.x - a.x)
        origin = start
        least = Double(first) + a.y - slope * a.x
        cornerCount = hull.count
    }

    /// The line's value at a time of the sender's clock.
    public func value(at time: Int64) -> Double { least + slope * Double(time &- origin) }
}

/// The clocks of two hosts, from packets that went both ways.
///
/// The offset is right to within half of the smallest round trip: how it divides among the two ways cannot be seen.
public struct ClockFit: Sendable {
    public let forward: DelayFloor
    public let backward: DelayFloor

    /// - Parameters:
    ///   - forward: Packets from the first host to the second.
    ///   - backward: Packets from the second to the first.
    public init?(forward: [(sent: Int64, received: Int64)], backward: [(sent: Int64, received: Int64)]) {
        guard let one = DelayFloor(forward), let two = DelayFloor(backward) else { return nil }
        self.forward = one
        self.backward = two
    }

    /// How much faster the second clock runs: 1e-6 is a part per million.
    public var skew: Double { forward.slope }
    /// By how much the two directions disagree about it.
    public var disagreement: Double { abs(forward.slope + backward.slope) }

    /// The second clock less the first at a time of the first, and how far off that may be; nanoseconds.
    public func offset(at time: Int64) -> (offset: Double, bound: Double) {
        let there = forward.value(at: time)
        // The way back is sent on the second clock.
        let back = backward.value(at: time &+ Int64(max(-9e18, min(9e18, there.isNaN ? 0 : there))))
        return ((there - back) / 2, abs(there + back) / 2)
    }
}
