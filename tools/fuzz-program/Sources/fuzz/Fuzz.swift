import Delivery
import Measures
import RateTest

/// What libFuzzer calls with each input. The first byte chooses the parser, the rest is what it reads.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let start, count > 0 else { return 0 }
    if fuzzesCaptures {
        captures(UnsafeRawBufferPointer(start: start, count: count))
        return 0
    }
    let bytes = UnsafeRawBufferPointer(start: start + 1, count: count - 1)
    switch start[0] % 4 {
    case 0: datagrams(bytes)
    case 1: hello(bytes)
    case 2: control(bytes)
    default: messages(bytes)
    }
    return 0
}

/// A super-packet of a rate test, with any segment size, into an account: every datagram is in exactly one count.
private func datagrams(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= 3 else { return }
    let segment = Int(bytes[0]) << 8 | Int(bytes[1])
    let super_ = UnsafeRawBufferPointer(rebasing: bytes[2...])
    var account = DatagramAccount(begin: nil, intervalLength: 1_000_000, intervalLimit: 64)
    let span = RawSpan(_unsafeBytes: super_)
    // The flow that its first header names, so that inputs get far.
    let flow = (try? WireHeader.read(span))?.flow ?? 1
    var offset = 0
    var counted = 0
    while offset < span.byteCount {
        let next = TestDatagram.receive(
            span,
            segment: max(1, segment),
            from: offset,
            firstWord: TestDatagram.firstWord(flow: flow),
            arrived: 1_000_000_000,
            shift: 0,
            into: &account
        )
        precondition(next >= offset && next <= span.byteCount, "an offset outside the packet")
        counted += (next - offset + max(1, segment) - 1) / max(1, segment)
        offset = next + max(1, segment)
    }
    account.settle()
    let (total, warmUp) = (account.total, account.warmUp)
    let all = total.received + total.duplicated + total.late + warmUp.received + warmUp.duplicated + warmUp.late
    precondition(all == Int64(counted), "a datagram in no count, or in two")
    _ = account.delayQuantiles
}

private func hello(_ bytes: UnsafeRawBufferPointer) {
    let span = RawSpan(_unsafeBytes: bytes)
    if let hello = FlowHello(span) {
        let again = hello.datagram(byteCount: bytes.count, sendTime: 0)
        precondition(again.count == bytes.count, "a HELLO of another length")
        precondition(FlowHello(again.span.bytes) == hello, "a HELLO that does not come back")
    }
    _ = FlowHello.cookie(in: span, for: 1)
}

/// A line of the control protocol: what is taken can be written and read again.
private func control(_ bytes: UnsafeRawBufferPointer) {
    guard let message = try? ControlMessage(line: Array(bytes)) else { return }
    let line = message.line.dropLast()
    guard let again = try? ControlMessage(line: line) else { preconditionFailure("a message that does not come back") }
    precondition(again.kind == message.kind, "another kind")
    guard let plan = message.plan, let ends = message.ends else { return }
    let flows = ends.map { end in
        var flow = FlowResult(flow: end.flow)
        (flow.sender, flow.receiver, flow.socket) = (end.sender, end.receiver, end.socket)
        return flow
    }
    let direction = DirectionResult(.up, flows: flows)
    _ = (direction.account(of: plan), direction.intervals(of: plan), direction.total(of: plan))
}

/// Everything else that travels between a movie's servers and its client.
private func messages(_ bytes: UnsafeRawBufferPointer) {
    let span = RawSpan(_unsafeBytes: bytes)
    guard let header = try? WireHeader.read(span) else { return }
    precondition(WireHeader.byteCount == 32 && header.objectOffset < 1 << 48, "a header outside its fields")
    let payload = span.extracting(WireHeader.byteCount...)
    switch header.type {
    case .hello: _ = Hello(payload)
    case .offer: _ = Offer(payload)
    case .request: _ = RangeRequest(payload)
    case .done: _ = RequestDone(payload)
    case .cancel: _ = RequestCancel(payload)
    case .blocks:
        if header.flags.contains(.response) { _ = BlocksAnswer(payload) } else { _ = BlocksRequest(payload) }
    case .error: _ = WireFailure(payload)
    case .cookie, .data, .ping, .bye: break
    }
}

/// libFuzzer's driver, and the name under which the package manager expects a program's start.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
    _ count: UnsafeMutablePointer<CInt>,
    _ words: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>,
    _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

@_cdecl("fuzz_main")
public func start(_ count: CInt, _ words: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var words = words
    return runDriver(&count, &words) { fuzz($0, $1) }
}
