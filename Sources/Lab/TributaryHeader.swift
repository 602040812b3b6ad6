import Delivery
public import PipelineCore

/// The header of a datagram or frame of ours, by name: what the dissector for Wireshark shows.
public enum TributaryHeader {
    /// - Returns: Nothing if there is none at `offset`.
    public static func fields(_ bytes: RawSpan, at offset: Int) -> [(key: String, value: SummaryValue)] {
        guard offset <= bytes.byteCount, let header = try? WireHeader.read(bytes, at: offset) else { return [] }
        return [
            (key: "tributary.type", value: .integer(Int64(header.type.rawValue))),
            (key: "tributary.flags", value: .integer(Int64(header.flags.rawValue))),
            (key: "tributary.flow", value: .integer(Int64(header.flow))),
            (key: "tributary.sequence", value: .integer(Int64(clamping: header.sequence))),
            (key: "tributary.send_time", value: .integer(Int64(clamping: header.sendTime))),
            (key: "tributary.offset", value: .integer(Int64(clamping: header.objectOffset))),
            (key: "tributary.payload_length", value: .integer(Int64(header.payloadByteCount))),
        ]
    }
}
