/// What a stage may know of the world besides its options and its packets.
public struct StageContext {
    /// The stage's place in the configuration, for messages: `client/playout`.
    public var name: String
    /// A seed that is different for every stage and the same in every run with the same `run.seed`.
    public var seed: UInt64
    /// The sources of the pipeline. A packet's ``PacketDescriptor/path`` is an index into them.
    public var sources: [Source]
    /// The folder this run writes into; `nil` if it writes none. Absolute.
    public var runFolder: String?
    /// What relative paths in the options are relative to: the folder of the configuration file. Absolute.
    public var baseFolder: String
    /// The descriptors of this stage that its lane waits on.
    public var descriptors: Descriptors
    /// Addresses that pipelines of one file tell each other.
    public var addresses: AddressBoard
    /// Files that the run writes and that others read meanwhile.
    public var files: FileBoard
    /// Objects that stages of one lane share: the sockets of a server, between its capture and its sink.
    public var shared: LaneShared

    public init(
        name: String = "stage",
        seed: UInt64 = 1,
        sources: [Source] = [],
        runFolder: String? = nil,
        baseFolder: String = "/",
        descriptors: Descriptors = Descriptors(),
        addresses: AddressBoard = AddressBoard(),
        files: FileBoard = FileBoard(),
        shared: LaneShared = LaneShared()
    ) {
        self.name = name
        self.seed = seed
        self.sources = sources
        self.runFolder = runFolder
        self.baseFolder = baseFolder
        self.descriptors = descriptors
        self.addresses = addresses
        self.files = files
        self.shared = shared
    }

    /// The pipeline that the stage is in: the part of ``name`` before the slash.
    public var pipeline: String { String(name.prefix { $0 != "/" }) }

    /// The path that an option means.
    public func resolve(_ path: String) -> String { path.hasPrefix("/") ? path : baseFolder + "/" + path }

    /// The path of a file of this run, such as `chunks.csv`; `nil` if the run writes no folder.
    public func runFile(_ name: String) -> String? { runFolder.map { $0 + "/" + name } }
}

/// Objects that the stages of one lane share by name. One lane is one thread, so there is nothing to lock.
public final class LaneShared {
    private var objects: [String: AnyObject] = [:]
    public init() {}

    /// The object under `key`, made at its first use.
    public func object<Object: AnyObject>(_ key: String, make: () -> Object) -> Object {
        if let object = objects[key] as? Object { return object }
        let object = make()
        objects[key] = object
        return object
    }
}

/// What a stage asks of the lane it lives in. The lane provides the most that any of its stages asks.
///
/// This is the whole of negotiation: settled once, while reading the configuration, and refused there with a
/// position if two stages cannot live together (GStreamer's caps and smoltcp's `DeviceCapabilities`, much reduced).
public struct StageDemands: Hashable, Sendable {
    /// Packets in a batch.
    public var batchCapacity = 64
    /// Bytes in a slot of the pool.
    public var slotByteCount = 64
    /// Slots with bytes that the stage holds across turns, besides those of the batches around it.
    public var heldSlotCount = 0
    /// Whether the stage reads payload bytes. Two stages of which one needs bytes and the other provides none do not fit.
    public var needsBytes = false
    /// Whether packets leave this stage with bytes; `nil` if it passes on what it gets.
    public var providesBytes: Bool?
    /// Whether it does real I/O, which a virtual run cannot have.
    public var needsRealTime = false
    /// Whether the stage uses the pipeline's sources.
    public var needsSources = false
    /// Whether the pipeline serves others and ends with them, not by itself.
    public var isService = false
    /// The address it will listen at, `tcp 127.0.0.1:5000`, so that two stages at one address are found before either opens.
    public var listensAt: String?

    public init() {}

    /// The larger of each demand.
    public func merged(with other: StageDemands) -> StageDemands {
        var merged = self
        merged.batchCapacity = max(batchCapacity, other.batchCapacity)
        merged.slotByteCount = max(slotByteCount, other.slotByteCount)
        merged.heldSlotCount += other.heldSlotCount
        merged.needsBytes = needsBytes || other.needsBytes
        merged.providesBytes = other.providesBytes ?? providesBytes
        merged.needsRealTime = needsRealTime || other.needsRealTime
        merged.needsSources = needsSources || other.needsSources
        merged.isService = isService || other.isService
        merged.listensAt = listensAt ?? other.listensAt
        return merged
    }
}
