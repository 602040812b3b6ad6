public import CaptureFiles
import Delivery
import Foundation
import PipelineCore

/// Compares the logs of one run, or of the runs at both ends of a path, with what was captured of them.
///
/// A folder's part in it: `datagrams-*.log` (``DatagramRecord``), `chunks.csv`, `wire-*.pcapng`, and the counters in
/// `summary.json`. Datagrams of rate tests are joined by flow and sequence; a movie's chunks by the bytes that passed.
public struct WireCheck: Sendable {
    /// A chunk of `chunks.csv`, and when its bytes were on the wire, in nanoseconds of the run.
    public struct ChunkTimes: Sendable {
        public var row: ChunkRow
        /// When the first of its bytes from its own source passed, and the last that anybody had to send.
        public var firstByte: Int64?
        public var lastByte: Int64?
    }

    /// What can be given besides folders.
    public struct Capture: Sendable {
        public var path: String
        /// `tx`, `rx` or `both`; `nil`: what the file says.
        public var role: String?
        public init(path: String, role: String? = nil) {
            self.path = path
            self.role = role
        }
    }

    /// Why there is nothing to check.
    public struct Unreadable: Error, CustomStringConvertible, Sendable { public var description: String }

    public private(set) var verdict = Verdict.inconclusive
    public private(set) var reasons: [String] = []
    public private(set) var taps: [TapReport] = []
    public private(set) var counters = CheckCounters()
    public private(set) var clocks = ClockRelation.oneHost
    /// Of the datagrams of rate tests; `nil` if there were none.
    public private(set) var datagrams: CrossCheck?
    /// Of a movie's chunks; empty if there were none.
    public private(set) var chunks: [ChunkTimes] = []
    /// Chunks whose log and wire contradict each other, with why.
    public private(set) var wrongChunks: [(chunk: UInt64, reason: String)] = []
    /// TCP connections that carried the movie, or anything else that was captured.
    public private(set) var connections: [TCPMap.Connection] = []
    /// What of a file could not be read.
    public private(set) var warnings: [String] = []
    let join: DatagramJoin
    public let captures: [Capture]
    public let folders: [String]

    private struct Folder {
        var path: String
        var host: String
        var origin: Int64
        var summary: [String: Any]
    }

    /// - Throws: ``Unreadable`` if there is no log, or no capture.
    public init(folders: [String], captures: [Capture] = []) throws(Unreadable) {
        self.folders = folders
        var join = DatagramJoin()
        var all = captures
        var read: [Folder] = []
        var logs: [(path: String, host: String)] = []
        for path in folders {
            guard let names = try? FileManager.default.contentsOfDirectory(atPath: path) else {
                throw Unreadable(description: "\(path): there is no such folder")
            }
            let run = RunReading.json(path + "/run.json") ?? [:]
            let host = run["boot_id"] as? String ?? run["host"] as? String ?? ""
            let origin = (run["origin_realtime_ns"] as? NSNumber)?.int64Value ?? 0
            read.append(
                Folder(path: path, host: host, origin: origin, summary: RunReading.json(path + "/summary.json") ?? [:])
            )
            for name in names.sorted() {
                if name.hasPrefix("wire-"), name.hasSuffix(".pcapng") { all.append(Capture(path: path + "/" + name)) }
                if name.hasPrefix("datagrams"), name.hasSuffix(".log") { logs.append((path + "/" + name, host)) }
            }
        }
        guard !all.isEmpty else {
            throw Unreadable(
                description:
                    "\(folders.joined(separator: ", ")): no capture is here; add 'observers: [ { type: pcap, interface: IF } ]' "
                    + "to the pipeline, or name a capture with --capture"
            )
        }
        self.captures = all

        var sources: [WireSource] = []
        for capture in all {
            do throws(CaptureFileError) {
                let source = try WireSource(capture.path, role: capture.role, into: &join)
                if let problem = source.problem {
                    warnings.append("\(capture.path): \(problem); what comes before is used")
                }
                sources.append(source)
            } catch { throw Unreadable(description: "\(error)") }
        }
        var runDoubts = read.compactMap(Self.doubt)
        var hosts: (sender: [UInt32: String], receiver: [UInt32: String]) = ([:], [:])
        for log in logs {
            guard let bytes = try? CaptureBytes(path: log.path) else {
                runDoubts.append("\(log.path): cannot be read")
                continue
            }
            let problem = DatagramRecord.read(bytes.span) { side, record in
                if side == .sent {
                    hosts.sender[record.flow] = log.host
                } else {
                    hosts.receiver[record.flow] = log.host
                }
                Self.add(side, record, to: &join)
            }
            if let problem { warnings.append("\(log.path): \(problem)") }
            if let problem, problem.hasPrefix("byte 0:") || problem.hasPrefix("byte 12:") {
                runDoubts.append("\(log.path): \(problem)")
            }
        }
        clocks = Self.meetClocks(&join, hosts)
        self.join = join
        taps = sources.flatMap(\.taps)
        let steps = sources.reduce(0) { $0 + $1.clockSteps }
        count(read, sources)
        if !join.flows.isEmpty, !logs.isEmpty {
            // A tap that saw none of a flow that others logged says nothing about it.
            datagrams = CrossCheck(
                join,
                taps: taps,
                counters: counters,
                clocks: clocks,
                clockSteps: steps,
                expectsSends: Self.hasStage("udp_send", read),
                expectsReceipts: counters.socketDropped != nil,
                doubts: runDoubts
            )
        }
        for source in sources { connections += source.tcp.connections }
        for folder in read { checkChunks(folder, sources) }
        conclude(steps, runDoubts, sources.reduce(0) { $0 + $1.lostStreamCount + $1.tcp.evictedCount })
    }

    /// Whether one of the runs had a stage of a type, and so has a log of it.
    private static func hasStage(_ name: String, _ folders: [Folder]) -> Bool {
        folders.contains { folder in
            let pipelines = folder.summary["pipelines"] as? [String: Any] ?? [:]
            return pipelines.contains { pipeline, value in
                let stages = (value as? [String: Any])?["stages"] as? [String: Any] ?? [:]
                return stages.keys.contains { $0.hasPrefix(name) }
                    && FileManager.default.fileExists(atPath: folder.path + "/datagrams-\(pipeline).log")
            }
        }
    }

    /// A run that failed has logs that end anywhere.
    private static func doubt(_ folder: Folder) -> String? {
        if folder.summary.isEmpty { return "\(folder.path): the run did not come to its end" }
        guard let errors = folder.summary["errors"] as? [String], let first = errors.first else { return nil }
        return "\(folder.path): the run failed: \(first)"
    }

    private static func add(_ side: DatagramRecord.Side, _ record: DatagramRecord, to join: inout DatagramJoin) {
        for index in 0..<UInt64(record.count) {
            let length = Int(index == UInt64(record.count) - 1 ? record.lastLength : record.length)
            let sequence = record.sequence &+ index
            switch side {
            case .sent:
                join.addSent(
                    flow: record.flow,
                    sequence: sequence,
                    length: length,
                    before: record.first,
                    after: record.second
                )
            case .received:
                join.addReceived(
                    flow: record.flow,
                    sequence: sequence,
                    length: length,
                    kernel: record.first,
                    read: record.second,
                    dropped: record.count == 1 ? record.dropped : nil
                )
            }
        }
    }

    /// One host's stamps are compared as they are; two hosts' are brought together by flows that went both ways.
    private static func meetClocks(
        _ join: inout DatagramJoin,
        _ hosts: (sender: [UInt32: String], receiver: [UInt32: String])
    ) -> ClockRelation {
        let crossing = hosts.sender.filter { flow, host in hosts.receiver[flow].map { $0 != host } ?? false }
        guard let first = crossing.values.sorted().first else { return .oneHost }
        var (forward, backward): ([(sent: Int64, received: Int64)], [(sent: Int64, received: Int64)]) = ([], [])
        for flow in join.flows {
            guard let host = crossing[flow.id] else { continue }
            flow.forEach { _, entry in
                let sent = entry.wireOut != JoinedDatagram.unknown ? entry.wireOut : entry.before
                let came = entry.wireIn != JoinedDatagram.unknown ? entry.wireIn : entry.kernel
                guard sent != JoinedDatagram.unknown, came != JoinedDatagram.unknown else { return }
                if host == first { forward.append((sent, came)) } else { backward.append((sent, came)) }
            }
        }
        guard let fit = ClockFit(forward: forward, backward: backward) else { return .twoHosts(bound: .max, skew: 0) }
        var bound = 0.0
        func whole(_ value: Double) -> Int64 { value.isNaN ? 0 : Int64(max(-9e18, min(9e18, value))) }
        for (flow, host) in crossing {
            join.mapReceiverTimes(flow: flow) { time in
                // The fit is of times of the first host: the second's are brought there roughly first.
                let rough = host == first ? whole(fit.offset(at: time).offset) : 0
                let (offset, error) = fit.offset(at: time &- rough)
                bound = max(bound, error)
                return host == first ? time &- whole(offset) : time &+ whole(offset)
            }
        }
        return .twoHosts(bound: whole(bound.rounded(.up)), skew: fit.skew)
    }

    /// What the runs counted: of the socket, of the account behind it, of the queue before the wire.
    private mutating func count(_ folders: [Folder], _ sources: [WireSource]) {
        for folder in folders {
            let pipelines = folder.summary["pipelines"] as? [String: Any] ?? [:]
            for pipeline in pipelines.values {
                let stages = (pipeline as? [String: Any])?["stages"] as? [String: Any] ?? [:]
                for (name, stage) in stages where name.hasPrefix("udp_receive") {
                    func number(_ key: String) -> Int64 {
                        max(0, min(1 << 62, ((stage as? [String: Any])?[key] as? NSNumber)?.int64Value ?? 0))
                    }
                    counters.socketDropped = min(
                        1 << 60,
                        (counters.socketDropped ?? 0) + min(1 << 60, number("socket_dropped"))
                    )
                    counters.unread = min(1 << 60, counters.unread + min(1 << 60, number("unread_at_close")))
                    let closed = number("closed_realtime_ns")
                    if closed > 0 { counters.receiverClosed = max(counters.receiverClosed ?? 0, closed) }
                }
            }
        }
        for source in sources where source.role != "rx" {
            if let dropped = source.queueDropped {
                counters.queueDropped = min(1 << 60, (counters.queueDropped ?? 0) + dropped)
            }
        }
    }

    // MARK: Chunks

    /// On one host a time of the run and a wall time differ by what lay between two readings of the clocks.
    private static let clockReading: Int64 = 1_000

    private mutating func checkChunks(_ folder: Folder, _ sources: [WireSource]) {
        guard let table = try? ChunkTable(path: folder.path), !table.rows.isEmpty, table.rows[0].chunk != nil else {
            return
        }
        let names = addresses(folder)
        var whole = ByteTimeline()
        var own: [String: ByteTimeline] = [:]
        var counted: [String: Int64] = [:]
        // Each server's bytes from the first tap that saw them: a second would count them twice.
        var taken: Set<TCPMap.Endpoint> = []
        for server in sources.flatMap(\.servers) where taken.insert(server.endpoint).inserted {
            let host = server.endpoint.address
            let text = host.isIPv6 ? "[\(host)]:\(server.endpoint.port)" : "\(host):\(server.endpoint.port)"
            guard let name = names[text] else { continue }
            own[name] = server.object
            counted[name, default: 0] += server.byteCount
            whole.merge(server.object)
        }
        for row in table.rows {
            let offset = row.offset ?? 0
            var times = ChunkTimes(row: row)
            let end = offset.addingReportingOverflow(row.byteCount)
            guard !end.overflow, end.partialValue <= 1 << 60, row.done < 1 << 60 else {
                wrongChunks.append((row.chunk ?? .max, "lies outside of any object or time"))
                continue
            }
            let range = Int64(offset)..<Int64(end.partialValue)
            times.firstByte = own[row.source]?.first(in: range).map { ($0 &- folder.origin).clamped }
            times.lastByte = whole.times(of: range).map { ($0.last &- folder.origin).clamped }
            chunks.append(times)
            guard let chunk = row.chunk else { continue }
            guard let last = times.lastByte, let first = times.firstByte else {
                wrongChunks.append((chunk, "is in the log and was not seen whole on the wire"))
                continue
            }
            if let requested = row.requested, first < requested - Self.clockReading {
                wrongChunks.append((chunk, "passed \(requested - first) ns before it was asked for"))
            }
            if let firstByte = row.firstByte, first > firstByte + Self.clockReading {
                wrongChunks.append((chunk, "had its first byte \(first - firstByte) ns before that byte passed"))
            }
            if last > row.done + Self.clockReading {
                wrongChunks.append((chunk, "was whole \(last - row.done) ns before its last byte passed"))
            }
        }
        for (name, bytes) in sourceBytes(folder) {
            let passed = counted[name] ?? 0
            if passed < bytes {
                wrongChunks.append((.max, "source '\(name)' is said to have sent \(bytes) bytes, and \(passed) passed"))
            }
        }
    }

    private func fetched(_ folder: Folder) -> [[String: Any]] {
        let pipelines = folder.summary["pipelines"] as? [String: Any] ?? [:]
        return pipelines.values.flatMap { pipeline in
            let stages = (pipeline as? [String: Any])?["stages"] as? [String: Any] ?? [:]
            return (stages["fetch"] as? [String: Any])?["sources"] as? [[String: Any]] ?? []
        }
    }

    /// Names of the sources, by the address they were fetched from.
    private func addresses(_ folder: Folder) -> [String: String] {
        var names: [String: String] = [:]
        for source in fetched(folder) {
            if let address = source["address"] as? String, let name = source["name"] as? String {
                names[address] = name
            }
        }
        return names
    }

    private func sourceBytes(_ folder: Folder) -> [(name: String, bytes: Int64)] {
        fetched(folder).compactMap { source in
            guard let name = source["name"] as? String, let bytes = (source["bytes"] as? NSNumber)?.int64Value else {
                return nil
            }
            return (name, bytes)
        }
    }

    // MARK: Verdict

    private mutating func conclude(_ steps: Int, _ runDoubts: [String], _ lostStreams: Int) {
        var verdicts: [Verdict] = []
        if let datagrams {
            verdicts.append(datagrams.verdict)
            reasons += datagrams.reasons
        }
        if !chunks.isEmpty {
            var doubts = runDoubts
            if lostStreams > 0 {
                doubts.append("\(lostStreams) TCP streams could not be followed to their end: capture whole packets")
            }
            var dropped: UInt64 = 0
            for (index, tap) in taps.enumerated() where !taps[..<index].contains(where: { $0.name == tap.name }) {
                if !tap.sawBeginning || !tap.sawEnd {
                    doubts.append("the tap at \(tap.name) is not shown to have been live all the time")
                }
                if let unread = tap.unread, unread != 0 {
                    doubts.append("the tap at \(tap.name) leaves \(unread) packets unaccounted for")
                }
                dropped = max(dropped, tap.dropped ?? 0)
            }
            if steps > 0 { doubts.append("the clock was set during the run") }
            let unseen = connections.reduce(0) { $0 + $1.fromA.acknowledgedUnseen + $1.fromB.acknowledgedUnseen }
            if unseen > 0, dropped == 0 {
                doubts.append("\(unseen) bytes were acknowledged and never seen: the capture lacks them")
            }
            if chunks.allSatisfy({ $0.firstByte == nil }) { doubts.append("the taps saw none of the movie's bytes") }
            let seen = Double(chunks.count { $0.lastByte != nil }) / Double(chunks.count)
            let isLossOfTap =
                dropped > 0 && wrongChunks.allSatisfy { $0.reason.contains("not seen whole") || $0.chunk == .max }
            if !doubts.isEmpty {
                verdicts.append(.inconclusive)
                reasons += doubts
            } else if !wrongChunks.isEmpty, !isLossOfTap {
                verdicts.append(.contradicted)
                let first = wrongChunks[0]
                reasons.append(
                    "chunks.csv is wrong in \(wrongChunks.count) places: "
                        + (first.chunk == .max ? first.reason : "chunk \(first.chunk) \(first.reason)")
                )
            } else if dropped > 0 {
                verdicts.append(seen >= 0.99 ? .confirmedSample : .inconclusive)
                reasons.append(
                    "the taps dropped \(dropped) packets; \(Int(seen * 100)) % of the chunks were seen whole"
                )
            } else {
                verdicts.append(.confirmed)
            }
        }
        if verdicts.isEmpty { reasons.append("there is no log to confirm") }
        let order: [Verdict] = [.inconclusive, .contradicted, .confirmedSample, .confirmed]
        // What is contradicted stays so, whatever else cannot be said.
        verdict =
            verdicts.contains(.contradicted) ? .contradicted : order.first { verdicts.contains($0) } ?? .inconclusive
    }
}

extension Int64 {
    /// Within what can be added to and taken from other times.
    fileprivate var clamped: Int64 { Swift.max(-(1 << 61), Swift.min(1 << 61, self)) }
}
