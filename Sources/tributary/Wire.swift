import ArgumentParser
import CaptureFiles
import Foundation
import Lab
import PipelineCore
import WireStages

/// What was on the wire.
struct Wire: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "wire",
        abstract: "Capture packets, and check the logs of a run against them.",
        subcommands: [WireCapture.self, WireCheckCommand.self, WireShow.self, WireConvert.self]
    )
}

struct WireCheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Compare the logs of runs with the captures of them.",
        discussion: """
            Give the folder of a run, or of the runs at both ends of a path. Writes crosscheck.json, wire.csv and \
            annotated.pcapng into the first. Exit status: 0 CONFIRMED or CONFIRMED-SAMPLE, 2 CONTRADICTED, 3 INCONCLUSIVE.
            """
    )
    @Argument(help: "Folders of runs.", completion: .directory)
    var folders: [String]
    @Option(
        name: .customLong("capture"),
        help: "A capture that is not in them, with its side if it does not say: FILE[:tx|:rx|:both]. Repeatable."
    )
    var captures: [String] = []
    @Flag(help: "Only say; write nothing.")
    var dry = false
    @Flag(help: "Results as JSON on stdout.")
    var json = false

    func run() throws {
        let more = captures.map { text in
            let role = ["tx", "rx", "both"].first { text.hasSuffix(":" + $0) }
            return WireCheck.Capture(path: role.map { String(text.dropLast($0.count + 1)) } ?? text, role: role)
        }
        let check: WireCheck
        do {
            check = try WireCheck(folders: folders, captures: more)
        } catch {
            Terminal.error("error: \(error)")
            throw ExitCode(65)
        }
        Terminal.result(json ? check.json.indentedJSON() : printable(check.text))
        if !dry, let folder = folders.first { try Self.write(check, to: folder) }
        if check.verdict.exitStatus != 0 { throw ExitCode(check.verdict.exitStatus) }
    }

    static func write(_ check: WireCheck, to folder: String) throws {
        do {
            try check.write(to: folder)
        } catch {
            Terminal.error("error: \(error)")
            throw ExitCode(1)
        }
    }
}

struct WireShow: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "List the packets of a capture file.",
        discussion:
            "One line a packet: number, time, addresses, transport, and the header of ours in it. Exit status 65 if the file is cut or wrong; the packets before that are listed."
    )
    @Argument(help: "A pcap or pcapng file.", completion: .file(extensions: ["pcap", "pcapng"]))
    var file: String
    @Option(help: "Stop after so many packets.")
    var count: Int?
    @Flag(help: "One JSON object a line.")
    var json = false
    @Flag(help: "Only what the file is: interfaces, counts, first and last time.")
    var summary = false

    func run() throws {
        var reader: CaptureReader
        do {
            reader = try CaptureReader(path: file)
        } catch {
            Terminal.error("\(error)")
            throw ExitCode(65)
        }
        var (first, last): (Int64?, Int64?) = (nil, nil)
        var lines = ""
        while count.map({ reader.packetCount < $0 }) ?? true, let packet = reader.next() {
            if first == nil { first = packet.time }
            last = packet.time ?? last
            if summary { continue }
            lines += PacketLine(packet, reader, number: reader.packetCount).text(json: json) + "\n"
            if lines.utf8.count > 1 << 16 {
                FileHandle.standardOutput.write(Data(lines.utf8))
                lines = ""
            }
        }
        FileHandle.standardOutput.write(Data(lines.utf8))
        if summary { Terminal.result(describe(reader, first, last)) }
        if let problem = reader.problem {
            Terminal.error("\(file): \(problem); \(reader.packetCount) packets before it are good")
            throw ExitCode(65)
        }
    }

    private func describe(_ reader: CaptureReader, _ first: Int64?, _ last: Int64?) -> String {
        let interfaces = reader.interfaces.map { one -> SummaryValue in
            func number(_ value: UInt64?) -> SummaryValue { value.map { .integer(Int64(clamping: $0)) } ?? .null }
            return .object([
                (key: "name", value: .text(printable(one.name ?? ""))),
                (key: "purpose", value: .text(printable(one.purpose ?? ""))),
                (key: "link_type", value: .integer(Int64(one.linkType))),
                (key: "snap_length", value: .integer(Int64(one.snapLength))),
                (
                    key: "resolution",
                    value: .text("\(one.resolution.isBinary ? "2" : "10")^-\(one.resolution.exponent) s")
                ),
                (key: "filter", value: .text(printable(one.filter ?? ""))),
                (key: "received", value: number(one.statistics.received)),
                (key: "dropped", value: number(one.statistics.systemDropped)),
            ])
        }
        return SummaryValue.object([
            (key: "format", value: .text(reader.format.rawValue)),
            (key: "packets", value: .integer(Int64(reader.packetCount))),
            (key: "sections", value: .integer(Int64(reader.sectionCount))),
            (key: "skipped_blocks", value: .integer(Int64(reader.skippedBlockCount))),
            (key: "odd_times", value: .integer(Int64(reader.oddTimeCount))),
            (key: "first_ns", value: first.map { .integer($0) } ?? .null),
            (key: "last_ns", value: last.map { .integer($0) } ?? .null),
            (key: "comments", value: .list(reader.comments.map { .text(printable($0)) })),
            (key: "interfaces", value: .list(interfaces)),
        ]).indentedJSON()
    }
}

struct WireConvert: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "convert",
        abstract: "Write a capture anew as pcapng with times in nanoseconds.",
        discussion:
            "Packets, interfaces, their statistics and comments are kept. Packets without a time are left out and counted."
    )
    @Argument(help: "A pcap or pcapng file.") var input: String
    @Argument(help: "The file to write.") var output: String
    @Flag(help: "Overwrite a file that is there.") var force = false

    func run() throws {
        do {
            var reader = try CaptureReader(path: input)
            // Comments of sections, and the last statistics, are known when all has been read.
            var whole = reader
            while whole.next() != nil {}
            let writer = try PcapngWriter(output, application: "tributary", comments: whole.comments, replacing: force)
            var indices: [Int: Int] = [:]
            var untimed = 0
            while let packet = reader.next() {
                guard let time = packet.time else {
                    untimed += 1
                    continue
                }
                let index = indices[packet.interface] ?? writer.add(reader.interfaces[packet.interface])
                indices[packet.interface] = index
                writer.append(
                    interface: index,
                    time: time,
                    originalLength: packet.originalLength,
                    bytes: reader.file.span.extracting(packet.bytes),
                    comment: reader.comments(of: packet).first
                )
            }
            for (old, new) in indices.sorted(by: { $0.key < $1.key })
            where reader.interfaces[old].statistics != CaptureStatistics() {
                let last = reader.interfaces[old].statisticsComments.last
                writer.append(
                    reader.interfaces[old].statistics,
                    interface: new,
                    time: last?.time ?? 0,
                    comment: last?.text
                )
            }
            try writer.finish()
            if untimed > 0 { Terminal.error("\(untimed) packets have no time and were left out") }
            if let problem = reader.problem {
                Terminal.error("\(input): \(problem); \(writer.packetCount) packets before it were written")
                throw ExitCode(65)
            }
        } catch let error as CaptureFileError {
            Terminal.error("\(error)")
            throw ExitCode(65)
        }
    }
}

struct WireCapture: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "capture",
        abstract: "Capture what passes an interface into a pcapng file, until Ctrl-C.",
        discussion:
            "For the end of a path where no pipeline captures by itself. Needs CAP_NET_RAW, which is given up before the first packet is read."
    )
    @Argument(help: "The interface.") var interface: String
    @Argument(help: "The file to write.") var output: String
    @Option(help: "Filter expression.") var filter: String = "udp or tcp"
    @Option(help: "Which side of the wire it is: tx, rx or both.") var role: String = "both"
    @Option(help: "Bytes kept of each packet; a movie's need all of them: 262144.") var snaplen: Int = 128
    @Option(help: "Bytes of the kernel's ring.") var ring: Int = 32 << 20
    @Option(help: "End by itself after so many seconds.") var seconds: Double?

    func run() async throws {
        #if Pcap
        guard ["tx", "rx", "both"].contains(role), (64...262_144).contains(snaplen), ring >= 65_536 else {
            throw ValidationError("--role is tx, rx or both; --snaplen 64 to 262144; --ring at least 65536")
        }
        var settings = PcapSettings()
        (settings.interface, settings.role, settings.snapLength) = (interface, role, snaplen)
        (settings.buffer, settings.filter) = (ring, filter)
        let tap: PcapTap
        do throws(StageError) {
            tap = try PcapTap(settings, path: output, application: "tributary")
            try tap.start()
        } catch {
            Terminal.error("error: \(error.message)")
            throw ExitCode(1)
        }
        Terminal.error("capturing at \(interface); Ctrl-C ends it")
        await Signals.first(within: seconds)
        let outcome = tap.stop()
        for warning in outcome.warnings { Terminal.error("warning: \(warning)") }
        defer { if let words = outcome.failure { Terminal.error("error: \(words)") } }
        func number(_ value: UInt64) -> SummaryValue { .integer(Int64(clamping: value)) }
        Terminal.result(
            SummaryValue.object([
                (key: "file", value: .text(output)), (key: "delivered", value: number(outcome.delivered)),
                (key: "received", value: number(outcome.received)), (key: "dropped", value: number(outcome.dropped)),
                (key: "unread", value: .integer(outcome.unread)), (key: "saw_end", value: .boolean(outcome.sawEnd)),
            ]).json
        )
        if outcome.failure != nil { throw ExitCode(1) }
        #else
        Terminal.error(
            "error: this build cannot capture: install libpcap-dev and build with 'swift build --traits Pcap'"
        )
        throw ExitCode(1)
        #endif
    }
}

/// A packet as one line.
struct PacketLine {
    private let fields: [(key: String, value: SummaryValue)]

    init(_ packet: CapturedPacket, _ reader: borrowing CaptureReader, number: Int) {
        let bytes = reader.file.span.extracting(packet.bytes)
        let decoded = PacketDecoder.decode(
            bytes,
            originalLength: packet.originalLength,
            linkType: reader.interfaces[packet.interface].linkType
        )
        var fields: [(key: String, value: SummaryValue)] = [
            (key: "number", value: .integer(Int64(number))),
            (key: "time_ns", value: packet.time.map { .integer($0) } ?? .null),
            (key: "interface", value: .integer(Int64(packet.interface))),
            (key: "length", value: .integer(Int64(packet.originalLength))),
            (key: "captured", value: .integer(Int64(packet.bytes.count))),
        ]
        if decoded.ipVersion != 0 {
            fields.append((key: "src", value: .text("\(decoded.source)")))
            fields.append((key: "dst", value: .text("\(decoded.destination)")))
        }
        if decoded.outcome == .transport {
            fields.append((key: "transport", value: .text(decoded.isUDP ? "udp" : "tcp")))
            fields.append((key: "sport", value: .integer(Int64(decoded.sourcePort))))
            fields.append((key: "dport", value: .integer(Int64(decoded.destinationPort))))
            fields.append((key: "payload", value: .integer(Int64(decoded.payloadLength))))
            if decoded.isTCP {
                fields.append((key: "seq", value: .integer(Int64(decoded.tcpSequence))))
                fields.append((key: "ack", value: .integer(Int64(decoded.tcpAcknowledgment))))
                fields.append((key: "flags", value: .integer(Int64(decoded.tcpFlags))))
            }
            fields += TributaryHeader.fields(bytes, at: decoded.payloadOffset)
        } else {
            fields.append((key: "what", value: .text("\(decoded.outcome)")))
        }
        self.fields = fields
    }

    func text(json: Bool) -> String {
        guard !json else { return SummaryValue.object(fields).json }
        return fields.dropFirst().reduce(fields.first.map { "\($0.value.json)" } ?? "") { line, field in
            let value = field.value.json
            return line + " \(field.key)=\(value.hasPrefix("\"") ? String(value.dropFirst().dropLast()) : value)"
        }
    }
}

/// Text of a file, safe to show on a terminal.
func printable(_ text: String) -> String {
    String(
        text.map { character in
            character == "\n"
                || character.unicodeScalars.allSatisfy {
                    $0.value >= 32 && $0.value != 127 && !(128...159).contains($0.value)
                }
                ? character : "\u{FFFD}"
        }
    )
}
