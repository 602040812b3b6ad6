import Delivery
import MeasureStages
import NetworkStages
public import PipelineConfig
import StreamingStages
import WireStages

extension StageRegistry {
    /// Every stage this package ships. One line each: its type, and what `tributary stages` says of it.
    public static var standard: StageRegistry {
        var registry = StageRegistry()
        registry.register(Movie.self, "the requests of one movie, chunk by chunk, within a window past the playhead")
        registry.register(TCPServe.self, "serves the files of a folder over TCP")
        registry.register(UDPServe.self, "serves the files of a folder over UDP")
        registry.register(Generator.self, "datagrams of a rate test: fixed, uniform or recorded sizes")
        registry.register(UDPReceive.self, "receives datagrams, many in a system call")
        registry.register(PcapReplay.self, "the UDP payloads of a capture file, at their recorded times")

        registry.register(ChunkScheduler<Single>.self, "all chunks from one source")
        registry.register(ChunkScheduler<Alternate>.self, "chunk k from source k mod N, in lock-step or independently")
        registry.register(ChunkScheduler<Weighted>.self, "smooth weighted round robin")
        registry.register(ChunkScheduler<Pull>.self, "greedy: an idle source gets the next chunk")
        registry.register(
            ChunkScheduler<EarliestDelivery>.self,
            "each chunk by the source that will have delivered it first"
        )
        registry.register(Pacer.self, "lets data go at a rate")

        registry.register(Link.self, "emulated paths of constant rate and latency")
        registry.register(Fetch.self, "fetches chunks from tcp:// and udp:// sources")
        registry.register(UDPSend.self, "sends datagrams, many in a system call, and passes them on")

        registry.register(PlayoutSink.self, "plays the movie as a player would: start-up, stalls and their causes")
        registry.register(ChunkLog.self, "writes chunks.csv")
        registry.register(FileSink.self, "writes the movie to a file, in place when it is whole")
        registry.register(NullSink.self, "counts bytes and drops them")
        registry.register(
            DatagramLog.self,
            "writes which datagrams of a rate test passed, for the cross-check with the wire"
        )
        #if Pcap
        registry.register(PcapCapture.self, "packets of an interface, as they pass")
        registry.register(
            PcapObserver.self,
            "captures an interface while the pipeline runs, and compares the run's logs with it"
        )
        #else
        registry.registerMissing(
            "pcap",
            "needs libpcap: install libpcap-dev and build with 'swift build --traits Pcap'"
        )
        #endif
        registry.register(PacketLog.self, "writes a line for every packet that passes, to packets.csv")
        registry.register(FlowStats.self, "tells of each flow what was lost, reordered, duplicated, and the delays")
        registry.register(Reply.self, "sends back what a server's capture was asked for")
        return registry
    }
}
