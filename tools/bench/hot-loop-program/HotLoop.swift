import RateTest

/// `hot-loop DATAGRAMS SIZE SEGMENTS`: writes, parses and counts datagrams in memory; see `tools/bench/hot-loop`.
@main
struct HotLoop {
    static func main() throws {
        let numbers = CommandLine.arguments.dropFirst().compactMap { Int($0) }
        guard numbers.count == 3, numbers[1] >= 32, numbers[2] >= 1, numbers[1] * numbers[2] <= 65_507 else {
            print("usage: hot-loop DATAGRAMS SIZE SEGMENTS")
            return
        }
        let loop = HotLoopLanes(size: numbers[1], segments: numbers[2])
        print(try loop.run(datagrams: numbers[0]))
    }
}
