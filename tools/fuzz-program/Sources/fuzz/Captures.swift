import CaptureFiles
import Glibc

/// Whether capture files are fuzzed, in place of what comes from a network.
let fuzzesCaptures = getenv("TRIBUTARY_FUZZ").map { String(cString: $0) } == "captures"

/// A capture file: every packet lies within it and is decoded, mapped and joined; the counts add up.
func captures(_ bytes: UnsafeRawBufferPointer) {
    var reader = CaptureReader(CaptureBytes(Array(bytes)))
    var map = TCPMap()
    var join = DatagramJoin()
    var end = 0
    var segments = 0
    while let packet = reader.next() {
        precondition(
            packet.bytes.lowerBound >= end && packet.bytes.upperBound <= bytes.count,
            "a packet outside the file"
        )
        end = packet.bytes.upperBound
        let file = reader.file
        let span = file.span.extracting(packet.bytes)
        let decoded = PacketDecoder.decode(
            span,
            originalLength: packet.originalLength,
            linkType: reader.interfaces[packet.interface].linkType
        )
        precondition(decoded.payloadLength >= 0, "less than nothing")
        if decoded.isTCP {
            segments += 1
            map.add(decoded, span, time: packet.time ?? 0)
        }
        if decoded.isUDP {
            let sequence = UInt64(decoded.identification) << UInt64(decoded.sourcePort % 50)
            join.addWire(
                .out,
                flow: UInt32(decoded.destinationPort),
                sequence: sequence,
                length: decoded.payloadLength,
                time: packet.time ?? 0
            )
        }
        _ = reader.comments(of: packet)
    }
    if let problem = reader.problem {
        precondition((0...bytes.count).contains(problem.offset), "a problem outside the file")
    }
    var counted = 0
    for connection in map.connections {
        for stream in [connection.fromA, connection.fromB] {
            counted += stream.segmentCount
            precondition(
                stream.uniqueByteCount + stream.duplicateByteCount <= stream.dataByteCount,
                "more bytes than came"
            )
            precondition(stream.acknowledgedUnseen >= 0, "less than nothing is unseen")
            _ = stream.times(of: 0..<100)
            _ = stream.inOrderTimes(of: [1, 50, 100])
        }
    }
    precondition(counted == segments, "a segment in no stream")
    _ = CrossCheck(join, taps: [TapReport(name: "a", side: .out)], counters: CheckCounters())
}
