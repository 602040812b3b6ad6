import Foundation
import Lab
import Measures
import PipelineCore
import Testing

@Suite("Columns")
struct ColumnsTests {
    private let log = """
        seq,t_ns,source,offset,length,requested_ns,first_byte_ns,done_ns,dup
        0,0,a,0,100,0,1,500000000,0
        1,0,"b, north",100,50,0,-1,999999999,0
        2,0,a,150,100,0,1,1000000000,25
        3,0,a,250,70,0,1,3200000000,0

        """

    @Test("count chunks and add up bytes in half-open intervals, with a row for an empty one")
    func columns() {
        let table = ChunkTable(data: Data(log.utf8), file: "chunks.csv")
        #expect(table.badLines.isEmpty && !table.isCut)
        let columns = Columns(table, interval: 1_000_000_000)
        #expect(
            columns.text(.chunks, perSource: true) == """
                # seconds a b,_north total
                0 1 1 2
                1 1 0 1
                2 0 0 0
                3 1 0 1

                """
        )
        #expect(
            columns.text(.bytes, perSource: false) == """
                # seconds total
                0 150
                1 250
                2 250
                3 320

                """
        )
        #expect(Columns(table, interval: 250_000_000).text(.chunks, perSource: false).contains("\n0.75 1\n"))
    }

    @Test("a log that was cut in a line is read to the last full one, bad lines are told by number")
    func cut() {
        let cut = log + "4,0,a,320,1"
        let table = ChunkTable(data: Data(cut.utf8), file: "x.csv")
        #expect(table.isCut && table.rows.count == 4 && table.badLines.isEmpty)
        let bad = log.replacing("2,0,a,150,100", with: "2,0,a,150,many").replacing("3,0,a", with: "3,a")
        let read = ChunkTable(data: Data(bad.utf8), file: "x.csv")
        #expect(read.rows.count == 2)
        #expect(read.badLines.map(\.line) == [4, 5])
        #expect(read.badLines[0].description.hasPrefix("x.csv:4: error: expected whole numbers, found '2,0,a,150,many"))
        #expect(
            ChunkTable(data: Data("seq,length\n1,2\n".utf8), file: "x").badLines.first?.message
                == "the header has no column 'source'"
        )
        #expect(ChunkTable(data: Data(), file: "x").rows.isEmpty)
    }

    @Test("the plain logs of 2013: seconds, milliseconds since 1970, commas, comments, CRLF")
    func plain() {
        func done(_ text: String) -> [Int64] { ChunkTable(data: Data(text.utf8), file: "log").rows.map(\.done) }
        #expect(done("0.25 1000\r\n1.5\t2000\r\n") == [250_000_000, 1_500_000_000])
        #expect(done("# time size\n1385000000123, 10\n\n1385000001623, 20\n") == [0, 1_500_000_000])
        #expect(done("1385000000.5 10\n1385000002.75 20") == [0, 2_250_000_000])
        let table = ChunkTable(data: Data("1 10\nnonsense\n2 x\n-1 5\n3 30\n".utf8), file: "log")
        #expect(table.rows.count == 2)
        #expect(table.badLines.map(\.line) == [2, 3, 4])
    }
}

@Suite("Statistics")
struct StatisticsTests {
    @Test("quantiles are those of R's default")
    func quantiles() {
        #expect(quantile([4, 1, 3, 2], 0.5) == 2.5)
        #expect(quantile([1, 2, 3, 4, 5], 0.95) == 4.8)
        #expect(quantile([7], 0.95) == 7)
        #expect(quantile([], 0.5) == nil)
    }

    @Test("the paired bootstrap of two pairs is what can be enumerated")
    func bootstrap() {
        // Differences 1 and 3: the median of two draws is 1 (¼), 2 (½) or 3 (¼).
        let interval = pairedBootstrap([(0, 1), (0, 3)])
        #expect(interval == 1...3)
        #expect(pairedBootstrap([(0, 1), (0, 3)]) == interval)
        #expect(pairedBootstrap([(5, 7), (1, 3), (2, 4)]) == 2...2)
        #expect(pairedBootstrap([(0, 1)]) == nil)
    }
}

@Suite("Overrides")
struct OverridesTests {
    private func changed(_ place: String, _ value: String) -> (ConfigNode, [String]) {
        let mark = SourceMark(file: "f", line: 1, column: 1)
        func scalar(_ text: String) -> ConfigNode { .scalar(text, mark) }
        let stage = ConfigNode.mapping([("type", mark, scalar("pull")), ("outstanding", mark, scalar("2"))], mark)
        let root = ConfigNode.mapping(
            [
                (
                    "pipelines", mark,
                    .mapping([("client", mark, .mapping([("stages", mark, .sequence([stage], mark))], mark))], mark)
                )
            ],
            mark
        )
        var problems: [ConfigProblem] = []
        let changes = Overrides(.mapping([(place, mark, scalar(value))], mark), problems: &problems)
        return (changes.apply(to: root, problems: &problems), problems.map(\.message))
    }

    private func text(_ node: ConfigNode?) -> String? { if case .scalar(let text, _)? = node { text } else { nil } }

    @Test("name an item by number or type, add a key, take one away")
    func places() {
        for place in ["client.stages.0.outstanding", "client.stages.pull.outstanding"] {
            let (node, problems) = changed(place, "7")
            #expect(problems.isEmpty)
            guard case .sequence(let items, _)? = node["pipelines"]?["client"]?["stages"] else {
                Issue.record("the stages are gone")
                return
            }
            #expect(text(items[0]["outstanding"]) == "7")
        }
        #expect(changed("client.stages.0.outstanding", "null").0["pipelines"]?["client"]?["stages"] != nil)
        #expect(changed("client.seed", "1").1.isEmpty)
        #expect(changed("clint.stages.0", "x").1 == ["'clint.stages.0': there is no 'clint'; did you mean 'client'?"])
        #expect(changed("client.stages.9", "x").1 == ["'client.stages.9': the list has no item '9'"])
    }
}
