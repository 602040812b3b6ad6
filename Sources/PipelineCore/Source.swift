/// One place that a movie can be fetched from. Sources stand on the pipeline, so that scheduler, transport and logs agree.
public struct Source: Hashable, Sendable {
    /// What people call it: `a`, `cdn-frankfurt`.
    public var name: String
    /// `tcp://host:port/object`, `udp://host:port/object`, or `tcp://@pipeline/object` for a server in the same file.
    /// Empty for an emulated path.
    public var url: String
    /// Its share under `weighted`.
    public var weight: Int
    /// What an emulated path (`link`) delivers, and what a scheduler believes before it has measured.
    public var rate: BitRate?
    /// From a request to its first byte, likewise.
    public var latency: Duration

    public init(name: String, url: String = "", weight: Int = 1, rate: BitRate? = nil, latency: Duration = .zero) {
        self.name = name
        self.url = url
        self.weight = weight
        self.rate = rate
        self.latency = latency
    }
}
