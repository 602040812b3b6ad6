import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import Synchronization

/// Where a server listens: `PORT` or `HOST:PORT`, on loopback unless a host is named.
public struct ListenAddress: Sendable, Hashable, CustomStringConvertible {
    public var host: String
    /// 0: any that is free.
    public var port: Int

    public static let loopback = ListenAddress(host: "127.0.0.1", port: 0)

    public init(host: String, port: Int) { (self.host, self.port) = (host, port) }

    /// - Returns: `nil` if it is neither `PORT`, `HOST:PORT` nor `[ADDRESS]:PORT`.
    public init?(_ text: String) {
        let colon = text.lastIndex(of: ":")
        guard let port = UInt16(colon.map { text[text.index(after: $0)...] } ?? text[...]) else { return nil }
        var host = colon.map { String(text[..<$0]) } ?? "127.0.0.1"
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = String(host.dropFirst().dropLast())
        } else if host.contains(":") {
            return nil
        }
        guard !host.isEmpty else { return nil }
        self.init(host: host, port: Int(port))
    }

    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// A server of pages for the person at this machine, in tasks of its own.
///
/// It answers only requests that name it by an address or as `localhost`: a foreign page whose name was made to point
/// here (DNS rebinding) gets nothing.
public final class LocalServer: Sendable {
    /// Why it does not listen.
    public struct Failure: Error, CustomStringConvertible { public var description: String }

    /// Where it is to be found: `http://127.0.0.1:8080/`.
    public let url: String
    /// Who looks at it.
    public let audience: Audience
    private let task: Task<Void, any Error>

    init(
        _ address: ListenAddress,
        audience: Audience,
        routes: (Router<BasicRequestContext>) -> Void
    ) async throws(Failure) {
        let router = Router()
        router.add(middleware: HostGuard(host: address.host))
        routes(router)
        let (bound, continuation) = AsyncStream<Int>.makeStream()
        let application = Application(
            router: router,
            configuration: ApplicationConfiguration(
                address: .hostname(address.host, port: address.port),
                availableConnectionsDelegate: MaximumAvailableConnections(64)
            ),
            onServerRunning: { channel in continuation.yield(channel.localAddress?.port ?? address.port) },
            logger: Logger(label: "live") { _ in SwiftLogNoOpLogHandler() }
        )
        task = Task {
            defer { continuation.finish() }
            try await application.run()
        }
        guard let port = await bound.first(where: { _ in true }) else {
            var reason = "it was ended"
            do {
                try await task.value
            } catch let error as IOError {
                reason = unsafe String(cString: strerror(error.errnoCode))
            } catch { reason = "\(error)" }
            throw Failure(description: "cannot listen at \(address): \(reason)")
        }
        let host = ["0.0.0.0": "127.0.0.1", "::": "::1"][address.host] ?? address.host
        url = "http://\(ListenAddress(host: host, port: port))/"
        self.audience = audience
    }

    /// Ends it, open connections and all.
    public func stop() async {
        task.cancel()
        _ = await task.result
    }
}

/// Who looks at a server's pages and plays its movie: so that it stays while somebody does.
public final class Audience: Sendable {
    private struct State {
        var openCount = 0
        /// Until when somebody is taken to be there.
        var until: ContinuousClock.Instant?

        mutating func stay(_ time: Duration) { until = max(until ?? .now, .now.advanced(by: time)) }
    }
    private let state = Mutex(State())
    /// Who has taken nothing for so long is taken to have left.
    private static let patience = Duration.seconds(3)

    init() {}

    /// Something was taken.
    func look() { state.withLock { $0.stay(Self.patience) } }

    /// A page comes back soon, or is being made.
    func expect() { state.withLock { $0.stay(Self.patience * 5) } }

    func enter() {
        state.withLock { state in
            state.openCount += 1
            state.stay(Self.patience)
        }
    }

    func leave() {
        state.withLock { state in
            state.openCount -= 1
            state.stay(Self.patience)
        }
    }

    /// Whether a page has taken something lately, or is about to.
    public var isLooking: Bool { state.withLock { state in state.until.map { ContinuousClock.now < $0 } ?? false } }

    /// Whether somebody has come and nobody is left, nor comes again at once.
    public var hasLeft: Bool {
        state.withLock { state in
            state.openCount == 0 && (state.until.map { ContinuousClock.now >= $0 } ?? false)
        }
    }
}

/// Refuses requests that do not name this machine as somebody at it would.
private struct HostGuard: RouterMiddleware {
    typealias Context = BasicRequestContext
    /// What it was told to listen at.
    let host: String

    func handle(
        _ request: Request,
        context: Context,
        next: @concurrent (Request, Context) async throws -> Response
    ) async throws -> Response {
        var named = request.head.authority ?? ""
        if let colon = named.lastIndex(of: ":"), !named.hasSuffix("]") { named = String(named[..<colon]) }
        if named.hasPrefix("["), named.hasSuffix("]") { named = String(named.dropFirst().dropLast()) }
        let isOwn = named == "localhost" || named == host || Self.isAddress(named)
        // A page of another origin may ask, but must not change anything.
        let origin = request.headers[.origin]
        let isSame =
            request.method == .get || request.method == .head || origin == "http://\(request.head.authority ?? "")"
        guard isOwn, isSame else {
            return Response(
                status: isOwn ? .forbidden : .misdirectedRequest,
                body: .init(byteBuffer: ByteBuffer(string: "this server answers to localhost and to addresses\n"))
            )
        }
        var response = try await next(request, context)
        response.headers[.xContentTypeOptions] = "nosniff"
        response.headers[.cacheControl] = "no-store"
        return response
    }

    private static func isAddress(_ text: String) -> Bool {
        (try? SocketAddress(ipAddress: text, port: 0)) != nil
    }
}
