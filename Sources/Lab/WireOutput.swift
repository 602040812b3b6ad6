public import CaptureFiles
import Foundation
import MeasureStages
public import PipelineCore

extension WireCheck {
    /// `crosscheck.json`.
    public var json: SummaryValue {
        func count(_ check: CheckCount) -> SummaryValue {
            .object([
                (key: "count", value: .integer(check.count)), (key: "worst_ns", value: .integer(check.worst)),
                (key: "examples", value: .list(check.examples.map { .text("\($0.flow):\($0.sequence)") })),
            ])
        }
        func number(_ value: UInt64?) -> SummaryValue { value.map { .integer(Int64(clamping: $0)) } ?? .null }
        var fields: [(key: String, value: SummaryValue)] = [
            (key: "schema", value: .integer(1)), (key: "verdict", value: .text(verdict.rawValue)),
            (key: "reasons", value: .list(reasons.map { .text($0) })),
            (key: "warnings", value: .list(warnings.map { .text($0) })),
        ]
        switch clocks {
        case .oneHost: fields.append((key: "clocks", value: .object([(key: "hosts", value: .integer(1))])))
        case .twoHosts(let bound, let skew):
            fields.append(
                (
                    key: "clocks",
                    value: .object([
                        (key: "hosts", value: .integer(2)), (key: "bound_ns", value: .integer(bound)),
                        (key: "skew_ppm", value: .number(skew * 1e6)),
                    ])
                )
            )
        }
        fields.append(
            (
                key: "taps",
                value: .list(
                    taps.map { tap in
                        .object([
                            (key: "name", value: .text(tap.name)),
                            (key: "side", value: .text(tap.side == .out ? "out" : "in")),
                            (key: "delivered", value: number(tap.delivered)),
                            (key: "received", value: number(tap.received)),
                            (key: "dropped", value: number(tap.dropped)),
                            (key: "unread", value: tap.unread.map { .integer($0) } ?? .null),
                            (key: "saw_beginning", value: .boolean(tap.sawBeginning)),
                            (key: "saw_end", value: .boolean(tap.sawEnd)),
                            (key: "undecoded", value: number(tap.undecoded)),
                            (key: "foreign", value: number(tap.foreign)),
                            (key: "doubled", value: number(tap.doubled)),
                            (key: "inversions", value: number(tap.inversions)),
                        ])
                    }
                )
            )
        )
        fields.append(
            (
                key: "counters",
                value: .object([
                    (key: "queue_dropped", value: counters.queueDropped.map { .integer($0) } ?? .null),
                    (key: "socket_dropped", value: counters.socketDropped.map { .integer($0) } ?? .null),
                    (key: "unread_at_close", value: .integer(counters.unread)),
                ])
            )
        )
        if let check = datagrams {
            fields.append(
                (
                    key: "datagrams",
                    value: .object([
                        (key: "sent", value: .integer(check.sent)), (key: "wire_out", value: .integer(check.wireOut)),
                        (key: "wire_in", value: .integer(check.wireIn)),
                        (key: "received", value: .integer(check.received)),
                        (key: "coverage", value: .number(check.coverage)),
                        (key: "sent_only", value: count(check.sentOnly)),
                        (key: "path_lost", value: count(check.pathLost)),
                        (key: "wire_only", value: count(check.wireOnly)),
                        (key: "received_only", value: count(check.receivedOnly)),
                        (key: "unsent", value: count(check.unsent)),
                        (key: "duplicates", value: count(check.duplicatesOnWire)),
                        (key: "logged_twice", value: count(check.loggedTwice)),
                        (key: "lengths_differ", value: count(check.lengthsDiffer)),
                        (key: "left_before_sent", value: count(check.leftBeforeSent)),
                        (key: "came_before_left", value: count(check.cameBeforeLeft)),
                        (key: "stamped_before_came", value: count(check.stampedBeforeCame)),
                        (key: "stamps_equal", value: .integer(check.stampsEqual)),
                        (key: "stamps_differ", value: count(check.stampsDiffer)),
                        (key: "drops_attributed", value: .integer(check.dropsAttributed)),
                        (key: "drops_unattributed", value: count(check.dropsUnattributed)),
                        (key: "reordered", value: .integer(check.reorderedOnWire)),
                        (key: "delays", value: .list(check.delays.map(\.json))),
                    ])
                )
            )
        }
        if !chunks.isEmpty {
            fields.append(
                (
                    key: "chunks",
                    value: .object([
                        (key: "logged", value: .integer(Int64(chunks.count))),
                        (
                            key: "with_wire_times",
                            value: .integer(Int64(chunks.count { $0.firstByte != nil && $0.lastByte != nil }))
                        ),
                        (
                            key: "wrong",
                            value: .list(
                                wrongChunks.prefix(20).map {
                                    .text($0.chunk == .max ? $0.reason : "chunk \($0.chunk) \($0.reason)")
                                }
                            )
                        ),
                        (key: "wrong_count", value: .integer(Int64(wrongChunks.count))),
                        (key: "delays", value: .list(chunkDelays.map(\.json))),
                    ])
                )
            )
        }
        if !connections.isEmpty {
            fields.append(
                (
                    key: "tcp",
                    value: .list(
                        connections.flatMap { [streamJSON($0.a, $0.b, $0.fromA), streamJSON($0.b, $0.a, $0.fromB)] }
                    )
                )
            )
        }
        return .object(fields)
    }

    private func streamJSON(_ from: TCPMap.Endpoint, _ to: TCPMap.Endpoint, _ stream: TCPStream) -> SummaryValue {
        let counts: [(String, Int64)] = [
            ("segments", Int64(stream.segmentCount)), ("bytes", stream.dataByteCount),
            ("unique_bytes", stream.uniqueByteCount), ("duplicate_bytes", stream.duplicateByteCount),
            ("retransmitted", Int64(stream.retransmittedSegmentCount)), ("hole_fills", Int64(stream.holeFillCount)),
            ("keep_alives", Int64(stream.keepAliveCount)), ("zero_windows", Int64(stream.zeroWindowCount)),
            ("sack_blocks", Int64(stream.sackBlockCount)), ("dsacks", Int64(stream.dsackCount)),
            ("acknowledged_unseen", stream.acknowledgedUnseen),
        ]
        let ends: [(key: String, value: SummaryValue)] = [
            (key: "from", value: .text("\(from.address) \(from.port)")),
            (key: "to", value: .text("\(to.address) \(to.port)")),
        ]
        return .object(ends + counts.map { (key: $0.0, value: .integer($0.1)) })
    }

    /// Request to first wire byte, first wire byte to log, last wire byte to log.
    public var chunkDelays: [CheckDelay] {
        func delay(_ name: String, _ values: [Int64]) -> CheckDelay? {
            guard !values.isEmpty else { return nil }
            let sorted = values.sorted()
            func quantile(_ fraction: Double) -> Int64 {
                sorted[min(sorted.count - 1, Int(fraction * Double(sorted.count)))]
            }
            var delay = CheckDelay(name: name)
            delay.count = Int64(sorted.count)
            (delay.least, delay.greatest) = (sorted[0], sorted[sorted.count - 1])
            delay.mean = sorted.reduce(0.0) { $0 + Double($1) } / Double(sorted.count)
            (delay.p50, delay.p90, delay.p99, delay.p999) = (
                quantile(0.5), quantile(0.9), quantile(0.99), quantile(0.999)
            )
            delay.bound = 1_000
            return delay
        }
        return [
            delay(
                "request->wire",
                chunks.compactMap { one in one.firstByte.flatMap { first in one.row.requested.map { first &- $0 } } }
            ),
            delay(
                "wire->first byte",
                chunks.compactMap { one in one.firstByte.flatMap { first in one.row.firstByte.map { $0 &- first } } }
            ),
            delay("wire->whole", chunks.compactMap { one in one.lastByte.map { one.row.done &- $0 } }),
        ].compactMap { $0 }
    }

    /// A table and sentences for people.
    public var text: String {
        var lines = ["\(verdict.rawValue)" + (reasons.isEmpty ? "" : ": " + reasons.joined(separator: "; "))]
        if let check = datagrams {
            lines.append("")
            lines.append(
                "datagrams: sent \(check.sent), left \(check.wireOut), came in \(check.wireIn), received \(check.received)"
            )
            let parts: [(String, Int64)] = [
                ("sent and not seen to leave", check.sentOnly.count), ("lost on the path", check.pathLost.count),
                ("came in and not received", check.wireOnly.count), ("received and not seen", check.receivedOnly.count),
                ("left and not sent", check.unsent.count), ("twice on the wire", check.duplicatesOnWire.count),
                ("reordered", check.reorderedOnWire),
            ]
            lines.append("  " + parts.map { "\($0.0) \($0.1)" }.joined(separator: ", "))
            let known = [("the queue", counters.queueDropped), ("the socket", counters.socketDropped)]
            let drops = known.compactMap { name, count in count.map { "\(name) dropped \($0)" } }
            if !drops.isEmpty { lines.append("  by the kernel's counters \(drops.joined(separator: ", "))") }
            if check.stampsEqual + check.stampsDiffer.count > 0 {
                lines.append(
                    "  kernel's stamp is the wire's: \(check.stampsEqual) of \(check.stampsEqual + check.stampsDiffer.count)"
                )
            }
            if check.dropsAttributed + check.dropsUnattributed.count > 0 {
                lines.append(
                    "  drop counter is what the wire lacks: \(check.dropsAttributed) of \(check.dropsAttributed + check.dropsUnattributed.count)"
                )
            }
        }
        if !chunks.isEmpty {
            lines.append("")
            let timed = chunks.count { $0.firstByte != nil && $0.lastByte != nil }
            lines.append(
                "chunks: \(chunks.count) logged, \(timed) seen whole on the wire, \(wrongChunks.count) that contradict it"
            )
        }
        let delays =
            (datagrams?.delays ?? []).filter {
                taps.count < 2 || taps[0].name != taps[1].name || $0.name != "wire->wire"
            } + chunkDelays
        if !delays.isEmpty {
            lines.append("")
            var table = TextTable(header: ["us", "n", "least", "p50", "p90", "p99", "p99.9", "most", "+-"])
            for delay in delays {
                func microseconds(_ value: Int64) -> String { String(format: "%.2f", Double(value) / 1e3) }
                table.append(
                    [delay.name, String(delay.count)]
                        + [delay.least, delay.p50, delay.p90, delay.p99, delay.p999, delay.greatest, delay.bound].map(
                            microseconds
                        )
                )
            }
            lines.append(table.text)
        }
        lines.append("")
        for tap in taps {
            let counts =
                tap.received.map { "kernel \($0), dropped \(tap.dropped ?? 0), unread \(tap.unread ?? 0)" }
                ?? "the kernel's counts are not known"
            lines.append("tap \(tap.name) (\(tap.side == .out ? "out" : "in")): \(tap.delivered) packets; \(counts)")
        }
        for warning in warnings { lines.append("warning: \(warning)") }
        return lines.joined(separator: "\n")
    }

    /// Writes `crosscheck.json`, `wire.csv` and `annotated.pcapng` into a folder.
    public func write(to folder: String) throws {
        try Data((json.indentedJSON() + "\n").utf8).write(
            to: URL(filePath: folder + "/crosscheck.json"),
            options: .atomic
        )
        try writeTimes(folder + "/wire.csv")
        try annotate(folder + "/annotated.pcapng")
    }

    /// A line for each datagram and chunk; times in nanoseconds since 1970 (datagrams) or of the run (chunks), empty where
    /// there is none.
    private func writeTimes(_ path: String) throws {
        var text =
            "kind,flow,seq,source,length,app_before_ns,app_after_ns,wire_out_ns,wire_in_ns,kernel_ns,app_read_ns,flags\n"
        func written(_ time: Int64) -> String { time == JoinedDatagram.unknown ? "" : String(time) }
        let partial = path + ".part"
        guard FileManager.default.createFile(atPath: partial, contents: nil),
            let file = FileHandle(forWritingAtPath: partial)
        else {
            throw CaptureFileError(path: path, reason: "cannot be written")
        }
        func flush() throws {
            try file.write(contentsOf: Data(text.utf8))
            text = ""
        }
        for flow in join.flows {
            var failure: (any Error)?
            flow.forEach { sequence, entry in
                guard failure == nil else { return }
                text +=
                    "datagram,\(flow.id),\(sequence),,\(entry.length),\(written(entry.before)),\(entry.after.map(String.init) ?? "")"
                text +=
                    ",\(written(entry.wireOut)),\(written(entry.wireIn)),\(written(entry.kernel)),\(entry.read.map(String.init) ?? ""),\(entry.facts.rawValue)\n"
                if text.utf8.count > 1 << 20 { do { try flush() } catch { failure = error } }
            }
            if let failure { throw failure }
        }
        for chunk in chunks {
            let row = chunk.row
            text +=
                "chunk,,\(row.chunk.map(String.init) ?? ""),\(csvField(row.source)),\(row.byteCount)"
            text +=
                ",\(row.requested.map(String.init) ?? ""),,\(chunk.firstByte.map(String.init) ?? ""),\(chunk.lastByte.map(String.init) ?? "")"
            text += ",\(row.firstByte.map(String.init) ?? ""),\(row.done),\n"
        }
        try flush()
        try file.close()
        _ = try? FileManager.default.removeItem(atPath: path)
        try FileManager.default.moveItem(atPath: partial, toPath: path)
    }

    /// All captures as one, with the verdict and what is odd as comments, and the application's times at every thousandth.
    private func annotate(_ path: String) throws {
        let writer = try PcapngWriter(
            path,
            application: "tributary",
            comments: ["\(verdict.rawValue) \(reasons.joined(separator: "; "))"],
            replacing: true
        )
        for capture in captures {
            var reader = try CaptureReader(path: capture.path)
            var indices: [Int: Int] = [:]
            var number = 0
            while let packet = reader.next() {
                guard let time = packet.time else { continue }
                let interface = reader.interfaces[packet.interface]
                let index = indices[packet.interface] ?? writer.add(interface)
                indices[packet.interface] = index
                number += 1
                writer.append(
                    interface: index,
                    time: time,
                    originalLength: packet.originalLength,
                    bytes: reader.file.span.extracting(packet.bytes),
                    comment: comment(
                        packet,
                        reader.file.span.extracting(packet.bytes),
                        interface,
                        isRegular: number % 1_000 == 1
                    )
                )
            }
            for (old, new) in indices.sorted(by: { $0.key < $1.key }) {
                let interface = reader.interfaces[old]
                writer.append(interface.statistics, interface: new, time: interface.statisticsComments.last?.time ?? 0)
            }
        }
        try writer.finish()
    }

    private func comment(_ packet: CapturedPacket, _ bytes: RawSpan, _ interface: CaptureInterface, isRegular: Bool)
        -> String?
    {
        let decoded = PacketDecoder.decode(bytes, originalLength: packet.originalLength, linkType: interface.linkType)
        guard decoded.isUDP, let key = DatagramKey(bytes, decoded),
            let entry = join.flows.first(where: { $0.id == key.flow })?[key.sequence]
        else { return nil }
        var words: [String] = []
        if interface.purpose != "tx", datagrams != nil {
            if entry.facts.contains(.wireIn), !entry.facts.contains(.received), datagrams?.received ?? 0 > 0 {
                words.append("not received")
            }
            if entry.facts.isSuperset(of: [.received, .wireIn]), entry.kernel != entry.wireIn {
                words.append("kernel stamp \(entry.kernel &- entry.wireIn) ns off")
            }
        }
        if interface.purpose != "rx", datagrams?.sent ?? 0 > 0, !entry.facts.contains(.sent) {
            words.append("not in the send log")
        }
        if entry.facts.contains(.sent), entry.facts.contains(.wireOut), entry.before > entry.wireOut {
            words.append("sent after it left")
        }
        guard isRegular || !words.isEmpty else { return nil }
        var parts = ["flow \(key.flow) seq \(key.sequence)"] + words
        if entry.facts.contains(.sent) { parts.append("sent \(entry.before)") }
        if entry.facts.contains(.received) { parts.append("kernel \(entry.kernel) read \(entry.read ?? 0)") }
        return parts.joined(separator: "; ")
    }
}

extension CheckDelay {
    var json: SummaryValue {
        .object([
            (key: "name", value: .text(name)), (key: "n", value: .integer(count)),
            (key: "least_ns", value: .integer(least)),
            (key: "mean_ns", value: .number(mean)), (key: "p50_ns", value: .integer(p50)),
            (key: "p90_ns", value: .integer(p90)),
            (key: "p99_ns", value: .integer(p99)), (key: "p999_ns", value: .integer(p999)),
            (key: "most_ns", value: .integer(greatest)), (key: "bound_ns", value: .integer(bound)),
        ])
    }
}
