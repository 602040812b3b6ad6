import ArgumentParser
import Lab
import PipelineCore

struct Parse: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Turn a log into columns: chunks or accumulated bytes per interval.",
        discussion: """
            LOG is a run's folder, a chunks.csv, or a plain log of 'timestamp size' lines. OUT is a file for gnuplot, or -. \
            A line that cannot be read is reported with its number and skipped; the exit status is then 65.
            """,
        subcommands: [Chunks.self, Bytes.self]
    )

    struct Chunks: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Chunks in each interval.")
        @OptionGroup var options: Options
        func run() throws { try options.run(.chunks) }
    }

    struct Bytes: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Bytes from the start to the end of each interval.")
        @OptionGroup var options: Options
        func run() throws { try options.run(.bytes) }
    }

    struct Options: ParsableArguments {
        @Argument(help: "The log.", completion: .file())
        var log: String
        @Argument(help: "The file to write, or -.", completion: .file())
        var out: String
        @Option(help: "Length of an interval, such as 1s or 100ms.")
        var interval = "1s"
        @Flag(help: "One column for each source, besides the total.")
        var perSource = false

        func run(_ quantity: Columns.Quantity) throws {
            guard case .success(let length) = Duration.read(interval), length > .zero else {
                throw ValidationError("--interval: expected a duration with its unit, such as 1s, found '\(interval)'")
            }
            let table: ChunkTable
            do throws(ChunkTable.Unreadable) {
                table = try ChunkTable(path: log)
            } catch {
                Terminal.error("error: \(error)")
                throw ExitCode(65)
            }
            for line in table.badLines { Terminal.error("\(line)") }
            if table.isCut { Terminal.error("\(log): the last line is cut and was left out") }
            let columns = Columns(table, interval: Timestamp.zero.advanced(by: length).nanoseconds)
            if columns.tooLateCount > 0 {
                Terminal.error(
                    "error: \(columns.tooLateCount) lines lie beyond the last interval; use a longer --interval"
                )
            }
            do {
                try Columns.write(columns.text(quantity, perSource: perSource), to: out)
            } catch {
                Terminal.error("error: cannot write '\(out)': \(describe(error))")
                throw ExitCode(1)
            }
            if !table.badLines.isEmpty || columns.tooLateCount > 0 { throw ExitCode(65) }
        }
    }
}
