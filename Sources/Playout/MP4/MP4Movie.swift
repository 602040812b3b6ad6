/// One sample (a frame, an audio packet) of a track. Times in the track's timescale, edits applied.
public struct MP4Sample: Hashable, Sendable {
    public var offset: UInt64
    public var byteCount: UInt32
    public var dts: Int64
    public var pts: Int64
    public var duration: UInt32
    public var isKey: Bool
}

/// One track.
public struct MP4Track: Sendable {
    public enum Kind: Sendable { case video, audio, other }
    public internal(set) var id: UInt32 = 0
    public internal(set) var kind = Kind.other
    /// Ticks a second.
    public internal(set) var timescale: UInt32 = 0
    public internal(set) var samples: [MP4Sample] = []

    /// What is added to times of the media: the edit list, in ticks.
    var editShift: Int64 = 0
    /// Defaults for fragments.
    var defaults = MP4FragmentDefaults()
    /// The decode time at which the next fragment goes on.
    var nextDTS: Int64 = 0
    /// An empty edit's duration in the movie's timescale, until that is known.
    var emptyEdit: UInt64 = 0
    var mediaTime: Int64 = 0
    var editOffset: UInt64 = 0

    /// Nanoseconds of so many ticks, rounded down; clamped to ±292 years.
    public func nanoseconds(_ ticks: Int64) -> Int64 {
        guard timescale > 0 else { return 0 }
        let (seconds, rest) = ticks.quotientAndRemainder(dividingBy: Int64(timescale))
        let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        if overflow { return ticks < 0 ? .min / 4 : .max / 4 }
        return min(max(whole, .min / 4), .max / 4) + rest * 1_000_000_000 / Int64(timescale)
    }
}

/// What `trex` and `tfhd` say of samples that say nothing of themselves.
struct MP4FragmentDefaults: Sendable {
    var duration: UInt32 = 0
    var byteCount: UInt32 = 0
    var flags: UInt32 = 0
}

/// The index of a movie: what `moov` and the fragments read so far say of its video and audio samples.
///
/// Source: ISO/IEC 14496-12. Counts are checked against the box that holds them, and the number of samples is bounded, so
/// memory is bounded by the size of the boxes, whatever they say.
public struct MP4Movie: Sendable {
    /// Video and audio tracks, in order of appearance.
    public private(set) var tracks: [MP4Track] = []
    /// Whether samples come in fragments.
    public private(set) var isFragmented = false
    /// The samples in all tracks above which a file is refused.
    public static let sampleLimit = 4_000_000

    private var timescale: UInt32 = 0
    private var fragmentDuration: UInt64 = 0
    private let objectByteCount: UInt64

    /// Reads the content of a `moov` box.
    ///
    /// - Parameters:
    ///   - moov: What follows the box's header.
    ///   - offset: Where in the file that begins.
    public init(moov: [UInt8], at offset: UInt64, objectByteCount: UInt64) throws(MP4Error) {
        self.objectByteCount = objectByteCount
        var reader = BoxReader(moov, at: offset)
        var allDefaults: [UInt32: MP4FragmentDefaults] = [:]
        while let (type, box) = try reader.nextBox() {
            var box = box
            switch type {
            case "mvhd":
                let version = try box.versionAndFlags().version
                try box.skip(version == 1 ? 16 : 8)
                timescale = try box.uint32()
            case "trak": try readTrack(box)
            case "mvex":
                isFragmented = true
                while let (type, box) = try box.nextBox() {
                    var box = box
                    let version = try box.versionAndFlags().version
                    if type == "mehd" { fragmentDuration = try box.integer(version == 1 ? 8 : 4) }
                    guard type == "trex" else { continue }
                    let id = try box.uint32()
                    try box.skip(4)
                    allDefaults[id] = MP4FragmentDefaults(
                        duration: try box.uint32(),
                        byteCount: try box.uint32(),
                        flags: try box.uint32()
                    )
                }
            default: break
            }
        }
        for index in tracks.indices {
            tracks[index].defaults = allDefaults[tracks[index].id] ?? MP4FragmentDefaults()
            try applyEdits(index)
        }
    }

    // MARK: moov

    private mutating func readTrack(_ box: BoxReader) throws(MP4Error) {
        var track = MP4Track()
        var tables: BoxReader?
        var box = box
        while let (type, content) = try box.nextBox() {
            var content = content
            switch type {
            case "tkhd":
                let version = try content.versionAndFlags().version
                try content.skip(version == 1 ? 16 : 8)
                track.id = try content.uint32()
            case "edts":
                while let (type, list) = try content.nextBox() {
                    if type == "elst" { try readEdits(list, &track) }
                }
            case "mdia":
                while let (type, content) = try content.nextBox() {
                    var content = content
                    switch type {
                    case "mdhd":
                        let version = try content.versionAndFlags().version
                        try content.skip(version == 1 ? 16 : 8)
                        let place = content.offset
                        track.timescale = try content.uint32()
                        guard track.timescale > 0 else { throw MP4Error(at: place, "a track's timescale is 0") }
                    case "hdlr":
                        try content.skip(8)
                        switch FourCC(try content.uint32()) {
                        case "vide": track.kind = .video
                        case "soun": track.kind = .audio
                        default: track.kind = .other
                        }
                    case "minf":
                        while let (type, content) = try content.nextBox() {
                            if type == "stbl", tables == nil { tables = content }
                        }
                    default: break
                    }
                }
            default: break
            }
        }
        guard track.kind != .other, track.timescale > 0 else { return }
        if let tables { try readSamples(tables, &track) }
        tracks.append(track)
    }

    private func readEdits(_ box: BoxReader, _ track: inout MP4Track) throws(MP4Error) {
        var box = box
        track.editOffset = box.offset
        let version = try box.versionAndFlags().version
        let count = try box.entryCount(of: version == 1 ? 20 : 12, in: "elst")
        for _ in 0..<count {
            let duration = try box.integer(version == 1 ? 8 : 4)
            let raw = try box.integer(version == 1 ? 8 : 4)
            let mediaTime = version == 1 ? Int64(bitPattern: raw) : Int64(Int32(bitPattern: UInt32(raw)))
            try box.skip(4)
            // An empty edit delays what follows; the first real one says where in the media play begins. More edits cut
            // and repeat, which no server of movies makes: they are left out.
            if mediaTime == -1 {
                track.emptyEdit &+= duration
            } else {
                track.mediaTime = mediaTime
                break
            }
        }
    }

    private mutating func applyEdits(_ index: Int) throws(MP4Error) {
        let track = tracks[index]
        var shift = 0 as Int64
        if track.emptyEdit > 0, timescale > 0 {
            let (high, low) = track.emptyEdit.multipliedFullWidth(by: UInt64(track.timescale))
            guard high < timescale else {
                throw MP4Error(at: track.editOffset, "an empty edit lasts longer than 292 years")
            }
            shift = Int64(clamping: UInt64(timescale).dividingFullWidth((high, low)).quotient)
        }
        guard track.mediaTime.magnitude < 1 << 60, shift < 1 << 60 else {
            throw MP4Error(at: track.editOffset, "an edit begins at \(track.mediaTime), which no movie reaches")
        }
        tracks[index].editShift = shift - track.mediaTime
        for sample in tracks[index].samples.indices {
            tracks[index].samples[sample].dts += shift - track.mediaTime
            tracks[index].samples[sample].pts += shift - track.mediaTime
        }
    }

    private mutating func readSamples(_ box: BoxReader, _ track: inout MP4Track) throws(MP4Error) {
        var box = box
        var sizes: [UInt32] = []
        var durations: BoxReader?
        var compositions: BoxReader?
        var runs: BoxReader?
        var chunks: (reader: BoxReader, width: Int)?
        var keys: BoxReader?
        while let (type, content) = try box.nextBox() {
            switch type {
            case "stsz", "stz2": sizes = try readSizes(content, type)
            case "stts": durations = content
            case "ctts": compositions = content
            case "stsc": runs = content
            case "stco": chunks = (content, 4)
            case "co64": chunks = (content, 8)
            case "stss": keys = content
            default: break
            }
        }
        guard !sizes.isEmpty else { return }
        guard var durations, var runs, var chunks else {
            throw MP4Error(at: box.offset, "a track has samples, and no 'stts', 'stsc' or 'stco'")
        }
        var samples = sizes.map { MP4Sample(offset: 0, byteCount: $0, dts: 0, pts: 0, duration: 0, isKey: true) }

        // Decode times.
        _ = try durations.versionAndFlags()
        var index = 0
        var time: Int64 = 0
        for _ in 0..<(try durations.entryCount(of: 8, in: "stts")) {
            let count = Int(try durations.uint32())
            let delta = try durations.uint32()
            for _ in 0..<min(count, samples.count - index) {
                samples[index].dts = time
                samples[index].pts = time
                samples[index].duration = delta
                time += Int64(delta)
                index += 1
            }
        }
        while index < samples.count {
            samples[index].dts = time
            samples[index].pts = time
            index += 1
        }
        track.nextDTS = time

        // Composition offsets: signed whatever the version says, as writers have it.
        if var compositions {
            _ = try compositions.versionAndFlags()
            var index = 0
            for _ in 0..<(try compositions.entryCount(of: 8, in: "ctts")) {
                let count = Int(try compositions.uint32())
                let offset = Int64(try compositions.int32())
                for _ in 0..<min(count, samples.count - index) {
                    samples[index].pts = samples[index].dts + offset
                    index += 1
                }
            }
        }

        // Key frames.
        if var keys {
            for index in samples.indices { samples[index].isKey = false }
            _ = try keys.versionAndFlags()
            for _ in 0..<(try keys.entryCount(of: 4, in: "stss")) {
                let number = Int(try keys.uint32())
                if (1...samples.count).contains(number) { samples[number - 1].isKey = true }
            }
        }

        // Places: chunks of runs of samples.
        _ = try runs.versionAndFlags()
        _ = try chunks.reader.versionAndFlags()
        let runCount = try runs.entryCount(of: 12, in: "stsc")
        let chunkCount = try chunks.reader.entryCount(of: chunks.width, in: chunks.width == 4 ? "stco" : "co64")
        var first = 0
        var samplesPerChunk = 0
        var nextFirst = runCount > 0 ? Int(try runs.uint32()) : .max
        var runsLeft = runCount
        index = 0
        for chunk in 1...max(chunkCount, 1) where chunkCount > 0 {
            if chunk >= nextFirst, runsLeft > 0 {
                let place = runs.offset
                first = nextFirst
                samplesPerChunk = Int(try runs.uint32())
                try runs.skip(4)
                runsLeft -= 1
                nextFirst = runsLeft > 0 ? Int(try runs.uint32()) : .max
                guard nextFirst > first else { throw MP4Error(at: place, "the chunks of 'stsc' are not in order") }
            }
            var offset = try chunks.reader.integer(chunks.width)
            for _ in 0..<min(samplesPerChunk, samples.count - index) {
                samples[index].offset = offset
                try check(samples[index], at: chunks.reader.offset)
                offset += UInt64(samples[index].byteCount)
                index += 1
            }
        }
        guard index == samples.count else {
            throw MP4Error(at: chunks.reader.offset, "'stsc' and 'stco' place \(index) of \(samples.count) samples")
        }
        track.samples = samples
    }

    private func readSizes(_ box: BoxReader, _ type: FourCC) throws(MP4Error) -> [UInt32] {
        var box = box
        let place = box.offset
        _ = try box.versionAndFlags()
        if type == "stz2" {
            try box.skip(3)
            let bits = Int(try box.uint8())
            guard [4, 8, 16].contains(bits) else {
                throw MP4Error(at: place, "'stz2' has fields of \(bits) bits, not 4, 8 or 16")
            }
            let count = Int(try box.uint32())
            guard count <= box.remaining * 8 / bits else {
                throw MP4Error(
                    at: place,
                    "'stz2' says it has \(count) entries; there is room for \(box.remaining * 8 / bits)"
                )
            }
            try allow(count, at: place)
            var sizes: [UInt32] = []
            sizes.reserveCapacity(count)
            var pending: UInt8?
            for _ in 0..<count {
                if bits == 16 {
                    sizes.append(UInt32(try box.uint16()))
                } else if bits == 8 {
                    sizes.append(UInt32(try box.uint8()))
                } else if let low = pending {
                    sizes.append(UInt32(low))
                    pending = nil
                } else {
                    let byte = try box.uint8()
                    sizes.append(UInt32(byte >> 4))
                    pending = byte & 0xF
                }
            }
            return sizes
        }
        let fixed = try box.uint32()
        if fixed > 0 {
            let count = Int(try box.uint32())
            guard UInt64(count) <= objectByteCount / UInt64(fixed) else {
                throw MP4Error(
                    at: place,
                    "'stsz' says there are \(count) samples of \(fixed) bytes; the file has \(objectByteCount)"
                )
            }
            try allow(count, at: place)
            return Array(repeating: fixed, count: count)
        }
        let count = try box.entryCount(of: 4, in: "stsz")
        try allow(count, at: place)
        var sizes: [UInt32] = []
        sizes.reserveCapacity(count)
        for _ in 0..<count { sizes.append(try box.uint32()) }
        return sizes
    }

    private func allow(_ more: Int, at offset: UInt64) throws(MP4Error) {
        let count = tracks.reduce(more) { $0 + $1.samples.count }
        guard count <= Self.sampleLimit else {
            throw MP4Error(at: offset, "the file has \(count) samples or more; at most \(Self.sampleLimit) are read")
        }
    }

    private func check(_ sample: MP4Sample, at offset: UInt64) throws(MP4Error) {
        guard sample.offset <= objectByteCount, UInt64(sample.byteCount) <= objectByteCount - sample.offset else {
            throw MP4Error(
                at: offset,
                "a sample lies at bytes \(sample.offset) to \(sample.offset &+ UInt64(sample.byteCount)); the file has \(objectByteCount)"
            )
        }
    }

    // MARK: moof

    /// Reads the content of a `moof` box.
    ///
    /// - Parameters:
    ///   - moof: What follows the box's header.
    ///   - offset: Where in the file that begins.
    ///   - boxOffset: Where the box itself begins: offsets in it count from there.
    public mutating func addFragment(moof: [UInt8], at offset: UInt64, boxOffset: UInt64) throws(MP4Error) {
        isFragmented = true
        var reader = BoxReader(moof, at: offset)
        // Without a base of its own, a track fragment's data follows that of the one before it.
        var implicitBase = boxOffset
        while let (type, box) = try reader.nextBox() {
            if type == "traf" {
                implicitBase = try readTrackFragment(box, boxOffset: boxOffset, implicitBase: implicitBase)
            }
        }
    }

    private mutating func readTrackFragment(
        _ box: BoxReader,
        boxOffset: UInt64,
        implicitBase: UInt64
    ) throws(MP4Error) -> UInt64 {
        var box = box
        var track: Int?
        var defaults = MP4FragmentDefaults()
        var base = implicitBase
        var position = implicitBase
        while let (type, content) = try box.nextBox() {
            var content = content
            switch type {
            case "tfhd":
                let flags = try content.versionAndFlags().flags
                let id = try content.uint32()
                track = tracks.firstIndex { $0.id == id }
                defaults = track.map { tracks[$0].defaults } ?? defaults
                if flags & 0x1 != 0 { base = try content.uint64() } else if flags & 0x20000 != 0 { base = boxOffset }
                if flags & 0x2 != 0 { try content.skip(4) }
                if flags & 0x8 != 0 { defaults.duration = try content.uint32() }
                if flags & 0x10 != 0 { defaults.byteCount = try content.uint32() }
                if flags & 0x20 != 0 { defaults.flags = try content.uint32() }
                position = base
            case "tfdt":
                let place = content.offset
                let version = try content.versionAndFlags().version
                let time = try content.integer(version == 1 ? 8 : 4)
                guard time < 1 << 60 else {
                    throw MP4Error(at: place, "a fragment begins at \(time), which no movie reaches")
                }
                if let track { tracks[track].nextDTS = Int64(time) }
            case "trun":
                position = try readRun(&content, track, defaults, base: base, position: position)
            default: break
            }
        }
        return position
    }

    private mutating func readRun(
        _ box: inout BoxReader,
        _ track: Int?,
        _ defaults: MP4FragmentDefaults,
        base: UInt64,
        position: UInt64
    ) throws(MP4Error) -> UInt64 {
        let place = box.offset
        let flags = try box.versionAndFlags().flags
        let count = Int(try box.uint32())
        var position = position
        if flags & 0x1 != 0 {
            let offset = Int64(try box.int32())
            let (sum, overflow) = Int64(clamping: base).addingReportingOverflow(offset)
            guard !overflow, sum >= 0 else { throw MP4Error(at: place, "a run begins \(offset) bytes from \(base)") }
            position = UInt64(sum)
        }
        var firstFlags: UInt32?
        if flags & 0x4 != 0 { firstFlags = try box.uint32() }
        let fields = [0x100, 0x200, 0x400, 0x800].count { flags & UInt32($0) != 0 }
        guard fields == 0 || count <= box.remaining / (4 * fields) else {
            throw MP4Error(
                at: place,
                "'trun' says it has \(count) samples; there is room for \(box.remaining / (4 * fields))"
            )
        }
        // A run whose samples take no room in the box is bounded by the file, as one of a fixed size in 'stsz' is.
        guard fields > 0 || UInt64(count) <= objectByteCount / UInt64(max(1, defaults.byteCount)) else {
            throw MP4Error(
                at: place,
                "'trun' says it has \(count) samples of \(defaults.byteCount) bytes; the file has \(objectByteCount)"
            )
        }
        if fields == 0, track == nil { return position &+ UInt64(count) &* UInt64(defaults.byteCount) }
        try allow(count, at: place)
        for index in 0..<count {
            let duration = flags & 0x100 != 0 ? try box.uint32() : defaults.duration
            let byteCount = flags & 0x200 != 0 ? try box.uint32() : defaults.byteCount
            let own = flags & 0x400 != 0 ? try box.uint32() : nil
            let offset = flags & 0x800 != 0 ? Int64(try box.int32()) : 0
            let sampleFlags = own ?? (index == 0 ? firstFlags : nil) ?? defaults.flags
            guard let track else {
                position = position &+ UInt64(byteCount)
                continue
            }
            let dts = tracks[track].nextDTS + tracks[track].editShift
            let sample = MP4Sample(
                offset: position,
                byteCount: byteCount,
                dts: dts,
                pts: dts + offset,
                duration: duration,
                // sample_is_non_sync_sample
                isKey: sampleFlags & 0x1_0000 == 0
            )
            try check(sample, at: place)
            tracks[track].samples.append(sample)
            tracks[track].nextDTS += Int64(duration)
            position += UInt64(byteCount)
        }
        return position
    }

    // MARK: The map

    /// Media time of the whole movie, as far as it is known, in nanoseconds.
    public var duration: Int64 {
        let samples = tracks.map(end).max() ?? 0
        guard isFragmented, fragmentDuration > 0, timescale > 0, fragmentDuration < 1 << 62 else {
            return max(samples, 0)
        }
        let said = Double(fragmentDuration) * 1e9 / Double(timescale)
        return max(samples, said < 9e18 ? Int64(said) : 0)
    }

    private func end(of track: MP4Track) -> Int64 {
        track.samples.reduce(0) { max($0, track.nanoseconds($1.pts + Int64($1.duration))) }
    }

    /// Which media can be played with which bytes.
    ///
    /// With bytes `0..<n` there, media up to the least, over the tracks, of the smallest presentation time of a sample
    /// that is not complete.
    ///
    /// - Parameter indexEnd: Nothing can be played before so many bytes are there; 0 if the index came by itself.
    public func map(indexEnd: UInt64 = 0) -> MovieMap {
        let total = duration
        // For each track: after `end` bytes, up to `media`.
        var events: [(end: UInt64, track: Int, media: Int64)] = []
        var limits: [Int64] = []
        for (index, track) in tracks.enumerated() where !track.samples.isEmpty {
            let samples = track.samples.map { (end: $0.offset + UInt64($0.byteCount), pts: track.nanoseconds($0.pts)) }
                .sorted { $0.end < $1.end }
            // What no known sample limits: the rest of the movie, or what the next fragment will say.
            var least = isFragmented ? end(of: track) : Int64.max
            var own: [(end: UInt64, track: Int, media: Int64)] = []
            for sample in samples.reversed() {
                own.append((sample.end, index, least))
                least = min(least, sample.pts)
            }
            events += own
            while limits.count <= index { limits.append(.max) }
            limits[index] = max(0, least)
        }
        events.sort { ($0.end, $0.media) < ($1.end, $1.media) }
        var steps: [MovieMap.Step] = []
        for event in events {
            limits[event.track] = max(limits[event.track], event.media)
            let media = min(limits.min() ?? 0, total)
            if media > steps.last?.media ?? 0 {
                steps.append(MovieMap.Step(end: max(event.end, indexEnd), media: media))
            }
        }
        return MovieMap(steps: steps, byteCount: objectByteCount, duration: total)
    }
}
