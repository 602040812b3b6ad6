import Foundation
public import Measures

/// What the two ends of a test say to each other over TCP: one JSON object a line.
///
/// ```
/// server: greeting                              a nonce, and whether a secret is needed
/// client: hello                                 the plan, and the proof if need be
/// server: accepted | refused
/// client: clock …  server: clock …              a few times, for the offset of the clocks
/// (UDP)   HELLO, COOKIE, HELLO for each flow    see ``FlowHello``
/// server: flow …                                each one that is there
/// client: start   server: start                 when each begins to send, by its own clock
/// both:   status, rate …                        while it runs
/// both:   sent                                  what was sent, when the sending has ended
/// both:   received                              what came of it; then the client closes
/// ```
public struct ControlMessage: Codable, Sendable {
    public enum Kind: String, Codable, Sendable {
        case greeting, hello, accepted, refused, clock, flow, start, status, rate, sent, received, error
    }
    public var kind: Kind
    /// `greeting`, `hello`: 1.
    public var version: Int?
    /// `greeting`: hexadecimal, and whether the client has to prove that it knows the secret.
    public var nonce: String?
    public var needsSecret: Bool?
    /// `hello`: HMAC-SHA-256 of the nonce under the secret, hexadecimal.
    public var proof: String?
    /// `hello`, `accepted`: tells two ends on one kernel that they are.
    public var host: String?
    public var plan: TestPlan?
    /// `accepted`: hexadecimal, to be repeated in each flow's HELLO.
    public var token: String?
    /// `accepted`: the ids of the flows.
    public var flows: [UInt32]?
    /// `flow`: which one.
    public var flow: UInt32?
    /// `clock`: nanoseconds of CLOCK_REALTIME at the client when asked, and at the server when answered.
    public var clientTime: Int64?
    public var serverTime: Int64?
    /// `start`: when the sender of this message begins, nanoseconds of its CLOCK_REALTIME.
    public var begin: Int64?
    /// `start` of the client: the server's clock minus its own, in nanoseconds.
    public var offset: Int64?
    /// `status`: of each flow that the sender of this message receives.
    public var status: [FlowStatus]?
    /// `rate`: UDP payload bits a second, all flows together, from now on.
    public var rate: UInt64?
    /// `sent`, `received`.
    public var ends: [FlowEnd]?
    /// `refused`, `error`: why, in a sentence.
    public var reason: String?

    public init(_ kind: Kind) { self.kind = kind }

    /// The most bytes of a line that a server takes from a client it does not know.
    public static let requestLimit = 65_536
    /// The most bytes of any line.
    public static let lineLimit = 32 << 20

    /// Reads one line, without its end.
    ///
    /// - Throws: A sentence that says what is wrong with it.
    public init(line: some Sequence<UInt8>) throws(ControlFault) {
        do {
            self = try JSONDecoder().decode(ControlMessage.self, from: Data(line))
        } catch {
            throw ControlFault("the other end sent a line that is no message of this protocol")
        }
        let problems = plan?.problems ?? []
        guard problems.isEmpty else { throw ControlFault(problems.joined(separator: "; ")) }
        guard (flows ?? []).count <= 64, (status ?? []).count <= 64, (ends ?? []).count <= 128 else {
            throw ControlFault("a message speaks of more flows than a test can have")
        }
        guard (ends ?? []).allSatisfy(\.isSane) else { throw ControlFault("a report has impossible counts") }
    }

    /// The line, with its end.
    public var line: [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.withoutEscapingSlashes]
        let data = (try? encoder.encode(self)) ?? Data()
        return Array(data) + [UInt8(ascii: "\n")]
    }
}

/// What is wrong with what the other end said or did.
public struct ControlFault: Error, Hashable, Sendable, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }
}

extension FlowEnd {
    /// Whether its counts can be added up without a trap: the other end may say anything.
    var isSane: Bool {
        let limit: Int64 = 1 << 56
        func isSane(_ values: Int64...) -> Bool { values.allSatisfy { $0 >= -1 && $0 < limit } }
        func isSane(_ counts: ArrivalCounts) -> Bool {
            isSane(counts.inOrder, counts.reordered, counts.duplicated, counts.late, counts.byteCount)
        }
        func isSane(_ quantiles: DelayQuantiles) -> Bool {
            isSane(quantiles.least, quantiles.p50, quantiles.p90, quantiles.p99, quantiles.p999, quantiles.p9999)
                && isSane(quantiles.greatest)
        }
        func isSane(_ departures: IntervalDepartures) -> Bool {
            isSane(departures.sent, departures.refused, departures.byteCount)
        }
        if let sender {
            guard isSane(sender.warmUp), isSane(sender.total), sender.intervals.count <= 100_001,
                sender.intervals.allSatisfy({ isSane($0) }),
                isSane(sender.span, sender.calls, sender.fullBuffers, sender.noBuffers, sender.unreachable),
                isSane(sender.usage.processorNanoseconds, sender.usage.runQueueDelayNanoseconds)
            else { return false }
        }
        if let receiver {
            guard isSane(receiver.warmUp), isSane(receiver.total), receiver.intervals.count <= 100_001,
                receiver.intervals.allSatisfy({ isSane($0.counts) && isSane($0.delay) && isSane($0.jitter) }),
                isSane(receiver.corrupted, receiver.foreign, receiver.jitter),
                isSane(receiver.delay), isSane(receiver.variation), isSane(receiver.reorderingExtent),
                receiver.delayBuckets.count <= LogLinearHistogram.bucketCount,
                receiver.delayBuckets.allSatisfy({ $0.count == 2 && $0[1] < UInt64(limit) })
            else { return false }
        }
        if let socket {
            guard isSane(socket.calls, socket.messages, socket.truncated, socket.dropped, socket.errors),
                isSane(socket.receiveBuffer), isSane(socket.kernelToApplication), isSane(socket.interarrival),
                isSane(socket.usage.processorNanoseconds, socket.usage.runQueueDelayNanoseconds)
            else { return false }
        }
        return true
    }
}
