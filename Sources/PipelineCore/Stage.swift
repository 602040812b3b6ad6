/// A room of the house: one purpose, one way in, one way out.
///
/// Do not conform to `Stage` itself; conform to ``Capture``, ``Scheduler``, ``Transport`` or ``Sink``.
///
/// A stage is a `final class` because it has an identity (a socket, a file, a place in the flow) and is never
/// copied. Keep its logic in a struct of its own that does no I/O; the class is the thin shell around it.
///
/// ## Lifecycle
///
/// `init` → ``start(at:)`` → turns → ``finish(at:)`` → `deinit`. Each is called once, in this order, on the
/// lane's thread. Sinks start first and finish last, so a stage always has someone to hand packets to.
/// `finish` may be called without `start` (another stage failed to start) and must then do nothing.
public protocol Stage: AnyObject, SendableMetatype {
    /// What the stage is configured by. Reading it is validating it.
    associatedtype Options: StageOptions

    /// The name in a configuration file, in lower_snake_case: a noun for captures, transports and sinks
    /// (`udp_receive`), an agent noun for schedulers (`pacer`).
    static var typeName: String { get }

    /// What the lane must provide for a stage with these options. Read before anything is built.
    static func demands(of options: Options) -> StageDemands

    /// What does not fit between these options and the sources of the pipeline, one sentence each.
    static func problems(of options: Options, with sources: [Source]) -> [String]

    /// Makes the stage. Opens nothing: sockets and files are opened by ``start(at:)``.
    init(options: Options, context: StageContext)

    /// Acquires what the stage needs from the machine.
    func start(at now: Timestamp) throws(StageError)

    /// Releases it again and writes any last output.
    func finish(at now: Timestamp) throws(StageError)
}

extension Stage {
    public static func demands(of options: Options) -> StageDemands { StageDemands() }
    public static func problems(of options: Options, with sources: [Source]) -> [String] { [] }
    public func start(at now: Timestamp) throws(StageError) {}
    public func finish(at now: Timestamp) throws(StageError) {}
}

/// Where packets begin: a traffic generator, a trace, a manifest's segments, a socket, a network interface.
public protocol Capture: Stage {
    /// Appends to `output` the packets that exist at `now`, at most `output.freeCapacity` of them.
    ///
    /// Sets `sequence`, `stream`, `byteCount` and `captured` of each.
    func capture(into output: inout PacketBatch, at now: Timestamp) throws(StageError) -> Wake
}

/// Decides when each packet goes on, and by which path: a pacer, a multi-server selector, a playout buffer.
///
/// Pure: no I/O, no clock, no randomness but what it draws from `context.seed`. It cannot fail, so its method does not throw.
public protocol Scheduler: Stage {
    /// Takes from `input` what it is willing to hold and appends to `output` what is due at `now`.
    ///
    /// What stays in `input` is offered again next turn; that is how a scheduler pushes back.
    func schedule(_ input: inout PacketBatch, into output: inout PacketBatch, at now: Timestamp) -> Wake
}

/// Moves packets: sockets, an emulated link, a trace-driven bottleneck.
public protocol Transport: Stage {
    /// Sends the packets of `input`, appends those that have arrived to `output`.
    ///
    /// Sets `departed` of what it sends and `arrived` of what it receives. A transport with only a sending
    /// half passes each packet on once it has departed. In a movie pipeline requests go in, data and done come out.
    func transfer(
        _ input: inout PacketBatch,
        into output: inout PacketBatch,
        at now: Timestamp
    ) throws(StageError) -> Wake
}

/// Where packets end: metrics, a packet log, a player model, a file.
public protocol Sink: Stage {
    /// Reads the packets. The lane drops them when every sink of the pipeline has seen them.
    ///
    /// Called when there are packets and when the wake it last asked for is due, then with an empty batch.
    func consume(_ input: borrowing PacketBatch, at now: Timestamp) throws(StageError) -> Wake
}

/// A stage that has something to tell the others: a transport about its paths, a playout buffer about its level.
/// Asked after each of its turns until it has nothing more to say.
public protocol Reporter: Stage {
    func nextReport() -> Report?
}

/// A stage that listens to what the others report. It hears nothing of what it said itself.
public protocol Learner: Stage {
    /// Called between turns, with reports in the order they were made.
    func learn(_ report: Report)
}

/// A stage that has something to add to the run's `summary.json`, under its name, when it has finished.
public protocol Summarizing: Stage {
    func summary() -> [(key: String, value: SummaryValue)]
}
