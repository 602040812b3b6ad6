import CBatchIO

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// What this kernel's UDP can do, found by doing it over loopback and looking at every byte that came.
public struct UDPCapabilities: Sendable {
    /// Datagrams of a super-packet that the kernel cuts; 1: it does not.
    public var maxSegments = 1
    /// Whether it joins equal datagrams on the way in.
    public var gro = false
    public var receiveStamps = false
    public var sendStamps = false
    public var dropCount = false
    /// Why there is no GSO or GRO, if there is none.
    public var fault: String?

    /// Asks the kernel. Takes a few milliseconds, and at most 200.
    public static func probe(isIPv6: Bool = false) -> UDPCapabilities {
        var raw = cbatchio_capabilities()
        var found = UDPCapabilities()
        let status = unsafe cbatchio_probe(isIPv6 ? AF_INET6 : AF_INET, &raw)
        guard status == 0 else {
            found.fault = Socket.message(-status)
            return found
        }
        found.maxSegments = raw.gso != 0 ? max(1, Int(raw.max_segments)) : 1
        found.gro = raw.gro != 0
        found.receiveStamps = raw.receive_stamps != 0
        found.sendStamps = raw.send_stamps != 0
        found.dropCount = raw.drop_count != 0
        if raw.fault != 0 {
            found.fault = raw.fault < 0 ? "what was sent came back with wrong bytes" : Socket.message(raw.fault)
        }
        return found
    }
}
