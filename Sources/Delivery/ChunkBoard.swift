public import PipelineCore

/// Who has been asked for which chunk, and which sources can be trusted with the next: what all policies share.
///
/// Shape: requests come in by ``add(_:)`` in any number, reports by ``learn(_:)``; ``step(_:at:)`` asks a policy until it
/// waits and leaves the descriptors to send in ``actions`` and what to tell the others in ``reports``.
///
/// **The rule of progress.** A path is judged by the age of its last useful progress, never by its round trip alone.
/// With bytes outstanding and none for `max(3 × round trip, 1 s)` it is *suspect*: each of its chunks is asked for again
/// elsewhere (a hedge; the first whole copy wins and the other is cancelled), and it gets nothing new but a probe, one
/// copy of a chunk that is on its way elsewhere, after 1 s, 2 s, 4 s and then every 8 s. Progress clears it.
///
/// The policy is behind an existential, asked once a decision; generic over it, all of this would run unspecialised, since
/// its types come from three modules.
public struct ChunkBoard {
    /// What to hand on: requests, hedges, cancels.
    public private(set) var actions: [PacketDescriptor] = []
    /// What to tell the other stages.
    public private(set) var reports: [Report] = []
    /// Second copies asked for.
    public private(set) var hedgeCount = 0
    /// Chunks that were asked for again because a copy failed.
    public private(set) var retryCount = 0

    private enum Health { case down, up, suspect, abandoned }
    private struct Path {
        var health = Health.down
        var outstanding: [UInt64: Timestamp] = [:]
        var lastProgress = Timestamp.unset
        var suspectSince = Timestamp.unset
        var nextProbe = Timestamp.unset
        var probeInterval: Int64 = 1_000_000_000
        var hint: Double?
        var hintLatency: Int64 = 0
    }
    private struct Flight {
        var request: PacketDescriptor
        var preferred: Int?
        var paths: [Int]
    }

    private var policy: any ChunkPolicy
    private var view = BoardView()
    private var paths: [Path]
    private var flights: [UInt64: Flight] = [:]

    public init(policy: any ChunkPolicy, sources: [Source]) {
        self.policy = policy
        paths = sources.map { source in
            var path = Path()
            path.hint = source.rate.map { Double($0.bitsPerSecond) }
            path.hintLatency = Timestamp.zero.advanced(by: source.latency).nanoseconds
            return path
        }
        view.paths = paths.map { path in
            var view = PathView()
            view.rate = path.hint
            view.latency = path.hintLatency
            return view
        }
    }

    /// Whether every chunk that came in is complete.
    public var isIdle: Bool { flights.isEmpty && view.waiting.isEmpty }

    /// Takes a request.
    public mutating func add(_ request: PacketDescriptor) {
        view.waiting.append(WaitingChunk(request: request, preferred: policy.prefer(request)))
    }

    /// Empties ``actions`` and ``reports`` of their first so many.
    public mutating func removeFirst(actions count: Int) { actions.removeFirst(count) }
    public mutating func nextReport() -> Report? { reports.isEmpty ? nil : reports.removeFirst() }

    // MARK: Learning

    public mutating func learn(_ report: Report) {
        switch report {
        case .path(let report): learn(report)
        case .source(let report): learn(report)
        case .chunk(let report): learn(report)
        case .playback, .object, .verified, .wanted, .sent: break
        }
    }

    private mutating func learn(_ report: PathReport) {
        let index = Int(report.path)
        guard paths.indices.contains(index) else { return }
        paths[index].lastProgress = max(paths[index].lastProgress, report.lastProgress)
        if report.rate > 0 { view.paths[index].rate = report.rate }
        if report.latency > 0 { view.paths[index].latency = report.latency }
        view.paths[index].outstandingByteCount = report.outstandingByteCount
        if report.outstandingByteCount > 0, report.lastProgress == report.time, let rate = view.paths[index].rate {
            let left = Int64(min((Double(report.outstandingByteCount) * 8e9 / rate).rounded(), 9e17))
            view.paths[index].drained = Timestamp(nanoseconds: report.time.nanoseconds + left)
        }
        if paths[index].health == .suspect, report.lastProgress > paths[index].suspectSince {
            paths[index].health = .up
            paths[index].probeInterval = 1_000_000_000
            reports.append(.source(SourceReport(.recovered, path: report.path, at: report.time)))
        }
        refresh(index)
    }

    private mutating func learn(_ report: SourceReport) {
        let index = Int(report.path)
        guard paths.indices.contains(index), paths[index].health != .abandoned else { return }
        switch report.event {
        case .up:
            paths[index].health = .up
            paths[index].probeInterval = 1_000_000_000
        case .refused, .timedOut, .closed, .protocolViolation: paths[index].health = .down
        case .noSuchObject, .differentObject, .abandoned: paths[index].health = .abandoned
        case .suspect, .recovered, .wrongBytes: break
        }
        refresh(index)
    }

    private mutating func learn(_ report: ChunkReport) {
        let index = Int(report.path)
        guard paths.indices.contains(index) else { return }
        switch report.step {
        case .done:
            close(report.chunk, on: index)
            view.paths[index].lastDone = report.time
            guard let flight = flights.removeValue(forKey: report.chunk) else {
                // It had failed and waited to be asked for again, and has come after all.
                view.waiting.removeAll { $0.request.sequence == report.chunk }
                return
            }
            for other in flight.paths where other != index { cancel(flight.request, on: other, at: report.time) }
        case .failed:
            close(report.chunk, on: index)
            fail(report.chunk, on: index)
        case .assigned, .hedged, .begun, .cancelled: break
        }
    }

    /// One copy of a chunk will not come: ask again, unless another copy is on its way.
    private mutating func fail(_ chunk: UInt64, on path: Int) {
        guard var flight = flights[chunk] else { return }
        flight.paths.removeAll { $0 == path }
        guard flight.paths.isEmpty else {
            flights[chunk] = flight
            return
        }
        flights[chunk] = nil
        retryCount += 1
        let place = view.waiting.firstIndex { $0.request.sequence > chunk } ?? view.waiting.count
        view.waiting.insert(WaitingChunk(request: flight.request, preferred: flight.preferred), at: place)
    }

    private mutating func cancel(_ request: PacketDescriptor, on path: Int, at now: Timestamp) {
        close(request.sequence, on: path)
        var cancel = request
        cancel.kind = .cancel
        cancel.path = UInt16(path)
        actions.append(cancel)
        reports.append(.chunk(ChunkReport(.cancelled, of: cancel, at: now)))
    }

    private mutating func close(_ chunk: UInt64, on path: Int) {
        paths[path].outstanding[chunk] = nil
        view.paths[path].outstandingRequestCount = paths[path].outstanding.count
    }

    private mutating func refresh(_ index: Int) { view.paths[index].isUsable = paths[index].health == .up }

    // MARK: Deciding

    /// Decides all that can be decided at `now`.
    ///
    /// - Returns: When to be called again if nothing is learnt before.
    public mutating func step(at now: Timestamp) -> Wake {
        judgeProgress(at: now)
        var wake = Wake.whenFed
        deciding: while true {
            switch policy.next(view, at: now) {
            case .assign(let place, let path):
                precondition(view.paths[path].isUsable, "a policy gave a chunk to a path that cannot be used")
                let chunk = view.waiting.remove(at: place)
                flights[chunk.request.sequence] = Flight(
                    request: chunk.request,
                    preferred: chunk.preferred,
                    paths: [path]
                )
                send(chunk.request, .request, on: path, at: now)
            case .wait(let until):
                if let until { wake = wake.sooner(of: .at(until)) }
                break deciding
            }
        }
        return wake.sooner(of: nextJudgement)
    }

    private mutating func send(
        _ request: PacketDescriptor,
        _ kind: PacketDescriptor.Kind,
        on path: Int,
        at now: Timestamp
    ) {
        var request = request
        request.kind = kind
        request.path = UInt16(path)
        actions.append(request)
        reports.append(.chunk(ChunkReport(kind == .hedge ? .hedged : .assigned, of: request, at: now)))
        let wasIdle = paths[path].outstanding.isEmpty
        paths[path].outstanding[request.sequence] = now
        // A path that had nothing to do is not blamed for the time before.
        if wasIdle { paths[path].lastProgress = max(paths[path].lastProgress, now) }
        view.paths[path].outstandingRequestCount = paths[path].outstanding.count
        view.paths[path].outstandingByteCount += UInt64(request.byteCount)
        if let arrival = view.expectedArrival(
            of: request.byteCount,
            by: path,
            drained: wasIdle ? now : view.paths[path].drained,
            depth: 2,
            at: now
        ) {
            view.paths[path].drained = arrival
        }
    }

    /// When a path that has something to deliver becomes suspect if it delivers nothing.
    private func suspectTime(_ index: Int) -> Timestamp? {
        guard paths[index].health == .up, !paths[index].outstanding.isEmpty else { return nil }
        let limit = max(3 * view.paths[index].latency, 1_000_000_000)
        return Timestamp(nanoseconds: paths[index].lastProgress.nanoseconds + limit)
    }

    /// When the rule of progress has something to do next.
    private var nextJudgement: Wake {
        paths.indices.reduce(Wake.whenFed) { wake, index in
            if let time = suspectTime(index) { return wake.sooner(of: .at(time)) }
            guard canProbe(index) else { return wake }
            return wake.sooner(of: .at(paths[index].nextProbe))
        }
    }

    /// Applies the rule of progress.
    private mutating func judgeProgress(at now: Timestamp) {
        for index in paths.indices {
            guard let due = suspectTime(index), due <= now else { continue }
            paths[index].health = .suspect
            paths[index].suspectSince = now
            paths[index].nextProbe = Timestamp(nanoseconds: now.nanoseconds + paths[index].probeInterval)
            refresh(index)
            let age = now.nanoseconds - paths[index].lastProgress.nanoseconds
            reports.append(.source(SourceReport(.suspect, path: UInt16(index), at: now, detail: age)))
        }
        for index in paths.indices where paths[index].health == .suspect {
            hedge(from: index, at: now)
            if canProbe(index), paths[index].nextProbe <= now { probe(index, at: now) }
        }
    }

    /// Asks for a suspect path's chunks elsewhere, first things first.
    private mutating func hedge(from index: Int, at now: Timestamp) {
        for chunk in paths[index].outstanding.keys.sorted() {
            guard let flight = flights[chunk], flight.paths.allSatisfy({ paths[$0].health != .up }) else { continue }
            let candidates = view.paths.indices.filter { view.paths[$0].isUsable && !flight.paths.contains($0) }
            let arrivals = candidates.map { path in
                let arrival = view.expectedArrival(
                    of: flight.request.byteCount,
                    by: path,
                    drained: view.paths[path].drained,
                    depth: 2,
                    at: now
                )
                return (path, arrival?.nanoseconds ?? .max)
            }
            guard let best = arrivals.min(by: { $0.1 < $1.1 })?.0 else { continue }
            flights[chunk]?.paths.append(best)
            hedgeCount += 1
            send(flight.request, .hedge, on: best, at: now)
        }
    }

    /// Whether a suspect path has nothing to do, and there is a chunk on its way elsewhere to try it with.
    private func canProbe(_ index: Int) -> Bool {
        guard paths[index].health == .suspect, paths[index].outstanding.isEmpty, let chunk = flights.keys.max() else {
            return false
        }
        return flights[chunk]?.paths.contains(index) == false
    }

    /// Gives a suspect path that has nothing to do a copy of the last chunk on its way elsewhere.
    private mutating func probe(_ index: Int, at now: Timestamp) {
        guard let chunk = flights.keys.max(), let flight = flights[chunk] else { return }
        flights[chunk]?.paths.append(index)
        hedgeCount += 1
        paths[index].probeInterval = min(2 * paths[index].probeInterval, 8_000_000_000)
        paths[index].nextProbe = Timestamp(nanoseconds: now.nanoseconds + paths[index].probeInterval)
        paths[index].suspectSince = now
        send(flight.request, .hedge, on: index, at: now)
    }
}
