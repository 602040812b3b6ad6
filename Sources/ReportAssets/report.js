"use strict";
// Draws what Swift has computed and plays the movie as the logs say. Everything in seconds of the run.
(() => {
  const raw = JSON.parse(document.getElementById("data").textContent);
  const second = 1e9 / raw.unit;
  let end = Math.max(1, raw.end / second);
  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "text") made.textContent = value;
      else if (key in made && key !== "list") made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  };
  const sums = (values) => {
    let sum = 0;
    return values.map((value) => (sum += value));
  };
  const colour = (index) => getComputedStyle(document.documentElement).getPropertyValue(`--c${index % 6}`).trim();
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const words = { startup: "starting", playing: "playing", stalled: "stalled", ended: "ended" };

  const segmentOf = ([state, begin, finish, media, cause]) => ({ state, begin: begin / second, end: finish / second, media: media / second, cause });
  const arms = raw.arms.map((arm) => ({
    ...arm,
    segments: arm.segments.map(segmentOf),
    chunks: { t: sums(arm.chunks.t).map((t) => t / second), s: arm.chunks.s, o: sums(arm.chunks.o) },
    buffer: { t: sums(arm.buffer.t).map((t) => t / second), v: sums(arm.buffer.v).map((v) => v / second) },
    frontier: { t: sums(arm.frontier.t).map((t) => t / second), v: sums(arm.frontier.v) },
    played: { t: sums(arm.played.t).map((t) => t / second), v: sums(arm.played.v) },
    length: arm.media / second,
  }));

  // What an arm's player does at a time of the run.
  const at = (arm, wall) => {
    const segments = arm.segments;
    let low = 0, high = segments.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (segments[middle].begin <= wall) low = middle; else high = middle - 1;
    }
    const segment = segments[low];
    if (!segment) return { state: "startup", media: 0 };
    const media = segment.state === "playing" ? segment.media + Math.min(wall, segment.end) - segment.begin : segment.media;
    return { state: segment.state, media, cause: segment.cause };
  };
  const stalls = () => arms.flatMap((arm) => arm.segments.filter((one) => one.state === "stalled").map((one) => one.begin)).sort((a, b) => a - b);

  // The clock of the run.
  const clock = { wall: 0, speed: 1, runs: false };
  // While the run goes on the clock is its own, until somebody looks back.
  let follows = Boolean(raw.feed);
  const listeners = [];
  const seek = (wall, keepsHash) => {
    if (!keepsHash) setFollows(false);
    clock.wall = Math.min(end, Math.max(0, wall));
    for (const listener of listeners) listener(true);
    if (!keepsHash) history.replaceState(null, "", `#t=${clock.wall.toFixed(2)}&speed=${clock.speed}`);
  };

  // Players
  const replay = document.getElementById("replay");
  const time = element("output", { ariaLabel: "time of the run" });
  const slider = element("input", { type: "range", min: 0, max: end, step: "any", value: 0, ariaLabel: "time of the run" });
  const play = element("button", { type: "button", text: "Play" });
  const speed = element("select", { ariaLabel: "speed" }, ...[0.25, 0.5, 1, 2, 4, 8].map((value) => element("option", { value, text: `${value}×`, selected: value === 1 })));
  const previous = element("button", { type: "button", text: "‹ stall", title: "previous stall (p)" });
  const next = element("button", { type: "button", text: "stall ›", title: "next stall (n)" });
  const binWidth = element("select", { ariaLabel: "width of intervals" });
  const live = element("button", { type: "button", text: "● live", className: "live", ariaPressed: "true", title: "follow the run" });
  const setFollows = (on) => {
    follows = on && Boolean(raw.feed);
    live.setAttribute("aria-pressed", String(follows));
  };
  replay.append(element("div", { className: "controls" }, ...(raw.feed ? [live] : []), play, speed, previous, next, slider, time, element("label", {}, "intervals ", binWidth)));
  const grid = element("div", { className: "arms" });
  replay.append(grid);

  let movie = raw.movie;
  if (movie === "embedded") {
    const bytes = Uint8Array.from(atob(document.getElementById("movie").textContent), (letter) => letter.charCodeAt(0));
    movie = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
  }
  const players = arms.map((arm) => {
    const badge = element("span", { className: "badge" });
    const video = movie ? element("video", { src: movie, muted: true, playsInline: true, preload: "auto" }) : null;
    const screen = element("div", { className: video ? "screen" : "screen empty" }, ...(video ? [video] : []), badge);
    const facts = element("div", { className: "facts" });
    const lag = element("span"), position = element("span"), level = element("span");
    facts.append(position, level, lag);
    const strip = element("canvas", { className: "strip", height: 14, tabIndex: 0, role: "img", ariaLabel: `what ${arm.title} did over time: ${arm.segments.filter((one) => one.state === "stalled").length} stalls` });
    if (video) video.addEventListener("loadedmetadata", () => show(true));
    grid.append(element("div", { className: "arm" }, element("h2", { text: arm.title }), screen, facts, strip));
    strip.addEventListener("click", (event) => seek((event.offsetX / strip.clientWidth) * end));
    return { arm, video, badge, lag, position, level, strip, pending: false, samples: [] };
  });

  const drawStrips = () => {
    for (const { arm, strip } of players) {
      strip.width = Math.max(1, strip.clientWidth * devicePixelRatio);
      const context = strip.getContext("2d");
      const colours = { startup: "#888888", playing: colour(2), stalled: colour(5), ended: variable("--line") };
      for (const one of arm.segments) {
        context.fillStyle = colours[one.state];
        context.fillRect((one.begin / end) * strip.width, 0, Math.max(1, ((one.end - one.begin) / end) * strip.width), 14);
      }
      context.fillStyle = variable("--playhead");
      context.fillRect((clock.wall / end) * strip.width - 1, 0, 2 * devicePixelRatio, 14);
    }
  };

  const valueAt = (series, wall) => {
    let low = 0, high = series.t.length - 1;
    if (high < 0 || series.t[0] > wall) return 0;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (series.t[middle] <= wall) low = middle; else high = middle - 1;
    }
    // Between two points a level changes evenly.
    const [from, to] = [series.t[low], series.t[low + 1]];
    return to > from ? series.v[low] + ((series.v[low + 1] - series.v[low]) * (wall - from)) / (to - from) : series.v[low];
  };

  const show = (jumped) => {
    const states = players.map((player) => at(player.arm, clock.wall));
    const rate = follows ? 1 : clock.speed;
    const ahead = Math.max(...states.map((state) => state.media));
    players.forEach((player, index) => {
      const state = states[index];
      const { video } = player;
      player.badge.textContent = words[state.state] + (state.state === "stalled" && state.cause ? `: ${state.cause.replaceAll("_", " ")}` : "");
      player.badge.dataset.state = state.state;
      player.position.textContent = `at ${state.media.toFixed(2)} s`;
      player.level.textContent = `buffer ${(state.state === "ended" ? 0 : valueAt(player.arm.buffer, clock.wall)).toFixed(2)} s`;
      player.lag.textContent = arms.length < 2 ? "" : ahead - state.media > 0.05 ? `behind by ${(ahead - state.media).toFixed(2)} s` : "in front";
      if (!video || !video.duration) return;
      const wanted = Math.min(state.media, video.duration);
      const error = video.currentTime - wanted;
      if (state.state === "playing" && clock.runs && wanted < video.duration) {
        if (jumped || Math.abs(error) > 0.25 * Math.max(1, rate)) video.currentTime = wanted;
        video.playbackRate = Math.min(16, Math.max(0.0625, rate * (1 - Math.max(-0.1, Math.min(0.1, error * 0.5)))));
        if (video.paused && !player.pending) {
          player.pending = true;
          video.play().catch(() => {}).finally(() => (player.pending = false));
        }
      } else {
        if (!video.paused && !player.pending) video.pause();
        if (Math.abs(error) > 0.02 && !video.seeking) video.currentTime = wanted;
      }
    });
    slider.value = clock.wall;
    time.textContent = `${clock.wall.toFixed(2)} / ${end.toFixed(1)} s`;
    drawStrips();
  };
  listeners.push(show);

  let last = 0;
  const frame = (now) => {
    // A tab that was hidden stops the clock instead of jumping.
    const passed = Math.min(0.25, (now - last) / 1000);
    last = now;
    if (clock.runs && !follows) {
      clock.wall = Math.min(end, clock.wall + passed * clock.speed);
      if (clock.wall >= end) raw.feed ? setFollows(true) : toggle(false);
      for (const listener of listeners) listener(false);
    }
    for (const player of players) {
      if (sampling && player.video) player.samples.push([clock.wall, player.video.currentTime, player.video.paused ? 1 : 0]);
    }
    requestAnimationFrame(frame);
  };
  let sampling = false;
  const toggle = (runs) => {
    clock.runs = runs && (follows || clock.wall < end);
    if (!clock.runs) setFollows(false);
    play.textContent = clock.runs ? "Pause" : "Play";
    for (const listener of listeners) listener(true);
  };
  const jump = (direction) => {
    const candidates = direction > 0 ? stalls().filter((one) => one > clock.wall + 0.01) : stalls().filter((one) => one < clock.wall - 0.01).reverse();
    if (candidates.length) seek(candidates[0]);
  };
  play.addEventListener("click", () => toggle(!clock.runs));
  live.addEventListener("click", () => { setFollows(true); clock.wall = end; toggle(true); });
  speed.addEventListener("change", () => { clock.speed = Number(speed.value); for (const listener of listeners) listener(true); });
  slider.addEventListener("input", () => seek(Number(slider.value)));
  previous.addEventListener("click", () => jump(-1));
  next.addEventListener("click", () => jump(1));
  addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      " ": () => toggle(!clock.runs), ArrowLeft: () => seek(clock.wall - 1), ArrowRight: () => seek(clock.wall + 1), n: () => jump(1), p: () => jump(-1),
      Home: () => seek(0), End: () => seek(end), ",": () => seek(clock.wall - 0.04), ".": () => seek(clock.wall + 0.04),
    };
    if (!keys[event.key] || (event.key === " " && event.target.matches("button, summary"))) return;
    event.preventDefault();
    keys[event.key]();
  });

  // Plots
  const plots = document.getElementById("plots");
  const gridPlots = element("div", { className: "plots" });
  gridPlots.style.setProperty("--arms", arms.length);
  plots.append(gridPlots);
  const key = uPlot.sync("run");
  const timePlots = [];
  let zooming = false;
  // Whether nobody has zoomed in: then the plots grow with the run.
  let isWhole = true;
  const zoom = (least, most) => {
    if (zooming) return;
    zooming = true;
    for (const plot of timePlots) plot.setScale("x", { min: least, max: most });
    zooming = false;
  };
  const bands = (arm) => ({
    hooks: {
      drawClear: [(plot) => {
        const context = plot.ctx;
        context.save();
        context.beginPath();
        context.rect(plot.bbox.left, plot.bbox.top, plot.bbox.width, plot.bbox.height);
        context.clip();
        for (const one of arm.segments) {
          if (one.state !== "stalled" && one.state !== "startup") continue;
          context.fillStyle = variable(one.state === "stalled" ? "--stall" : "--startup");
          const left = plot.valToPos(one.begin, "x", true), right = plot.valToPos(one.end, "x", true);
          context.fillRect(left, plot.bbox.top, Math.max(1, right - left), plot.bbox.height);
        }
        context.restore();
      }],
      ready: [(plot) => {
        const line = element("div", { className: "playhead" });
        plot.over.append(line);
        const place = () => {
          const left = plot.valToPos(clock.wall, "x");
          line.style.display = left < 0 || left > plot.over.clientWidth ? "none" : "";
          line.style.transform = `translateX(${left}px)`;
        };
        listeners.push(place);
        // Where it stands depends on the axes' sizes: known when the plot has been drawn.
        plot.hooks.draw = (plot.hooks.draw || []).concat(place);
        let down = null;
        plot.over.addEventListener("mousedown", (event) => (down = event.clientX));
        plot.over.addEventListener("mouseup", (event) => {
          if (down !== null && Math.abs(event.clientX - down) < 4) seek(plot.posToVal(event.clientX - plot.over.getBoundingClientRect().left, "x"));
          down = null;
        });
        plot.over.addEventListener("dblclick", () => zoom(0, end));
        place();
      }],
      setScale: [(plot, scale) => {
        if (scale !== "x" || !timePlots.includes(plot)) return;
        isWhole = plot.scales.x.min <= 0 && plot.scales.x.max >= end - 1e-9;
        zoom(plot.scales.x.min, plot.scales.x.max);
      }],
    },
  });
  const axes = (label) => [
    { stroke: variable("--ink"), grid: { stroke: variable("--line") }, ticks: { stroke: variable("--line") }, values: (plot, values) => values.map((value) => `${value} s`) },
    { stroke: variable("--ink"), grid: { stroke: variable("--line") }, ticks: { stroke: variable("--line") }, size: 64, label, labelSize: 16, labelFont: "12px system-ui" },
  ];
  const si = (value) => {
    if (value == null) return "-";
    const size = Math.abs(value);
    return size >= 1e9 ? `${(value / 1e9).toFixed(2)} G` : size >= 1e6 ? `${(value / 1e6).toFixed(2)} M` : size >= 1e3 ? `${(value / 1e3).toFixed(1)} k` : `${Math.round(value * 100) / 100}`;
  };
  // Microseconds, in the unit that suits them.
  const span = (value) => (value == null ? "-" : value >= 1e6 ? `${+(value / 1e6).toPrecision(3)} s` : value >= 1e3 ? `${+(value / 1e3).toPrecision(3)} ms` : `${+value.toPrecision(3)} us`);
  const add = (arm, title, label, series, data, top, more = {}) => {
    const box = element("div", { className: "plot" }, element("h2", {}, title + " ", element("small", { text: arm.title })));
    gridPlots.append(box);
    const plot = new uPlot(
      {
        width: Math.max(260, box.clientWidth - 16), height: 210, legend: { live: true }, cursor: { sync: { key: key.key, setSeries: false }, drag: { x: true, y: false }, focus: { prox: 16 } },
        scales: { x: { time: false, min: 0, max: end, range: (plot, least, most) => [least, most] }, y: { range: () => [0, top || 1] } },
        axes: axes(label), series: [{ label: "s", value: (plot, value) => (value == null ? "-" : value.toFixed(2)) }, ...series], plugins: [bands(arm)], ...more,
      },
      data,
      box,
    );
    plot.axes[1].values = (self, values) => values.map(si);
    plot.setScale("x", { min: 0, max: end });
    timePlots.push(plot);
    return { plot, box };
  };
  const line = (label, index, more = {}) => ({ label, stroke: colour(index), width: 1.5, points: { show: false }, value: (plot, value) => si(value), ...more });
  const steps = uPlot.paths.stepped({ align: 1 });
  const maximum = (lists) => lists.reduce((most, list) => list.reduce((a, b) => (b > a ? b : a), most), 0);

  const widths = [...new Set(arms.flatMap((arm) => arm.bins.map((one) => one.width)))].sort((a, b) => a - b);
  for (const width of widths) binWidth.append(element("option", { value: width, text: `${width / second} s`, selected: width / second === 1 }));
  if (!widths.some((width) => width / second === 1) && widths.length) binWidth.value = widths[widths.length - 1];
  const binsOf = (arm) => arm.bins.find((one) => one.width === Number(binWidth.value)) || arm.bins[arm.bins.length - 1] || { width: second, counts: [], bytes: [] };
  const edges = (bins) => (bins.counts[0] || []).map((_, index) => (index * bins.width) / second);
  // A step is drawn up to the next point: the last one needs its end.
  const stepped = (bins, lists) => [edges(bins).concat(((bins.counts[0] || []).length * bins.width) / second), ...lists.map((list) => list.concat(list.length ? list[list.length - 1] : 0))];
  const rates = (bins) => bins.bytes.map((list) => list.map((value, index) => ((value - (index ? list[index - 1] : 0)) * 8) / (bins.width / second)));

  const tops = () => ({
    bytes: maximum(arms.flatMap((arm) => binsOf(arm).bytes)) * 1.05,
    counts: maximum(arms.flatMap((arm) => binsOf(arm).counts)) * 1.1,
    rate: maximum(arms.flatMap((arm) => rates(binsOf(arm)))) * 1.05,
  });
  const bufferTop = () => maximum(arms.map((arm) => arm.buffer.v)) * 1.05;
  const objectTop = () => Math.max(1, ...arms.map((arm) => arm.bytes || arm.frontier.v.at(-1) || 0)) * 1.02;
  let top = tops();
  const binned = [], grown = [];
  const sized = [];
  const began = performance.now();
  const each = (make) => arms.forEach(make);
  each((arm) => {
    const series = arm.sources.map((name, index) => line(name, index));
    const made = add(arm, "Accumulated bytes", "bytes", series, [edges(binsOf(arm)), ...binsOf(arm).bytes], top.bytes);
    binned.push(() => { made.plot.scales.y.range = () => [0, top.bytes || 1]; made.plot.setData([edges(binsOf(arm)).map((t) => t + binsOf(arm).width / second), ...binsOf(arm).bytes], false); });
  });
  each((arm) => {
    const made = add(arm, "Chunks per interval", "chunks", arm.sources.map((name, index) => line(name, index, { paths: steps })), [edges(binsOf(arm)), ...binsOf(arm).counts], top.counts);
    binned.push(() => { made.plot.scales.y.range = () => [0, top.counts || 1]; made.plot.setData(stepped(binsOf(arm), binsOf(arm).counts), false); });
  });
  each((arm) => {
    const made = add(arm, "Throughput", "bit/s", arm.sources.map((name, index) => line(name, index, { paths: steps })), [edges(binsOf(arm)), ...rates(binsOf(arm))], top.rate);
    binned.push(() => { made.plot.scales.y.range = () => [0, top.rate || 1]; made.plot.setData(stepped(binsOf(arm), rates(binsOf(arm))), false); });
  });
  each((arm) => {
    const made = add(arm, "Playout buffer", "s", [line("ahead", 2)], [arm.buffer.t, arm.buffer.v], bufferTop());
    grown.push(() => { const most = bufferTop(); made.plot.scales.y.range = () => [0, most || 1]; made.plot.setData([arm.buffer.t, arm.buffer.v], false); });
  });
  each((arm) => {
    // Two lines by uPlot; the dots of each source by hand, one for each pixel: a run may have hundreds of thousands.
    const joined = () => {
      const data = uPlot.join([arm.frontier, arm.played].map((list) => [list.t, list.v]));
      const none = data[0].map(() => null);
      return [data[0], ...arm.sources.map(() => none), data[1], data[2]];
    };
    const dots = (plot) => {
      const { t: times, s: owners, o: offsets } = arm.chunks;
      const { left, top, width, height } = plot.bbox, { min, max } = plot.scales.x, context = plot.ctx;
      const across = width / (max - min), up = height / plot.scales.y.max, size = Math.max(2, Math.round(2 * devicePixelRatio));
      const colours = arm.sources.map((_, index) => colour(index)), last = arm.sources.map(() => -1);
      let low = 0, high = times.length;
      while (low < high) { const middle = (low + high) >> 1; if (times[middle] < min) low = middle + 1; else high = middle; }
      context.save();
      for (let source = 0; source < colours.length; source++) {
        if (plot.series[source + 1] && !plot.series[source + 1].show) continue;
        context.fillStyle = colours[source];
        for (let index = low; index < times.length && times[index] <= max; index++) {
          if (owners.charCodeAt(index) - 48 !== source) continue;
          const x = Math.round(left + (times[index] - min) * across), y = Math.round(top + height - offsets[index] * up);
          const place = x * 65536 + y;
          if (place === last[source]) continue;
          last[source] = place;
          context.fillRect(x - (size >> 1), y - (size >> 1), size, size);
        }
      }
      context.restore();
    };
    const legend = arm.sources.map((name, index) => ({ label: name, stroke: colour(index), width: 1, paths: () => null, points: { show: false }, value: () => "" }));
    const made = add(arm, "Where the bytes belong", "offset", [...legend, line("without a gap", 4, { spanGaps: true }), line("played", 3, { spanGaps: true, dash: [5, 4] })],
      joined(), objectTop(), { hooks: { draw: [dots] } });
    grown.push(() => { const most = objectTop(); made.plot.scales.y.range = () => [0, most]; made.plot.setData(joined(), false); });
  });
  each((arm) => {
    if (!arm.delays || !arm.delays.rows.length) return;
    const box = element("div", { className: "plot" }, element("h2", {}, "Wire and application ", element("small", { text: `${arm.title}: ${arm.delays.verdict}` })));
    gridPlots.append(box);
    // Shares of the delays at or below a time: least, p50, p90, p99, p99.9, most.
    const shares = [0, 0.5, 0.9, 0.99, 0.999, 1];
    const tables = arm.delays.rows.map(([, ...values]) => {
      const pairs = values.map((value, index) => [Math.max(0.01, value / 1000), shares[index]]).filter(([x], index, all) => !index || x > all[index - 1][0]);
      return [pairs.map(([x]) => x), pairs.map(([, y]) => y)];
    });
    const plot = new uPlot(
      { width: Math.max(260, box.clientWidth - 16), height: 210, scales: { x: { time: false, distr: 3 }, y: { range: () => [0, 1.02] } }, axes: [{ ...axes("")[0], values: (self, values) => values.map((value) => (value == null || Math.abs(Math.log10(value) % 1) > 1e-9 ? "" : span(value))) }, axes("share")[1]],
        series: [{ label: "delay", value: (self, value) => span(value) }, ...arm.delays.rows.map(([name], index) => line(name, index, { spanGaps: true, value: (self, value) => (value == null ? "-" : `${(value * 100).toFixed(1)} %`) }))] },
      uPlot.join(tables),
      box,
    );
    sized.push({ plot, box });
  });
  if (raw.pairs.length) {
    // A dot a repeat, a bar at the median: left of zero the arm stalled less than the first.
    const canvas = element("canvas", { className: "pairs", role: "img", ariaLabel: raw.pairs.map((one) => `${one.title}: median ${one.median.toFixed(3)} s of ${one.values.length} pairs`).join("; ") });
    gridPlots.append(element("div", { className: "plot wide" }, element("h2", {}, "Stalled, repeat by repeat, beside the first arm ", element("small", { text: "seconds; left of 0 is less" })), canvas));
    const draw = () => {
      const scale = devicePixelRatio, row = 26, width = canvas.clientWidth, height = row * raw.pairs.length + 24;
      canvas.style.height = `${height}px`;
      [canvas.width, canvas.height] = [width * scale, height * scale];
      const context = canvas.getContext("2d");
      context.scale(scale, scale);
      context.font = "12px system-ui";
      const all = raw.pairs.flatMap((one) => one.values).concat(0), least = Math.min(...all), most = Math.max(...all), label = Math.min(220, width * 0.4);
      const x = (value) => label + 10 + ((value - least) / (most - least || 1)) * (width - label - 60);
      context.fillStyle = variable("--line");
      context.fillRect(x(0), 0, 1, height - 18);
      raw.pairs.forEach((one, index) => {
        const y = row * index + row / 2;
        context.fillStyle = variable("--ink");
        context.textAlign = "right";
        context.fillText(one.title, label, y + 4, label);
        context.fillStyle = colour(0);
        for (const value of one.values) { context.beginPath(); context.arc(x(value), y, 3.5, 0, 7); context.fill(); }
        context.fillStyle = colour(5);
        context.fillRect(x(one.median) - 1, y - 9, 2, 18);
      });
      context.fillStyle = variable("--soft");
      context.textAlign = "center";
      for (const value of new Set([least, 0, most])) context.fillText(`${value.toFixed(1)} s`, x(value), height - 4);
    };
    draw();
    addEventListener("resize", draw);
  }
  for (const plot of timePlots) sized.push({ plot, box: plot.root.parentElement });
  binWidth.addEventListener("change", () => { top = tops(); for (const redraw of binned) redraw(); });
  for (const redraw of binned) redraw();
  addEventListener("resize", () => {
    for (const { plot, box } of sized) plot.setSize({ width: Math.max(260, box.clientWidth - 16), height: 210 });
    show(false);
  });

  // Data
  const save = (name, type, text) => {
    const url = URL.createObjectURL(new Blob([text], { type }));
    element("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  document.getElementById("json")?.addEventListener("click", () => save("report.json", "application/json", document.getElementById("data").textContent));
  document.getElementById("csv").addEventListener("click", () => {
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const rows = arms.flatMap((arm) => arm.chunks.t.map((t, index) => `${quoted(arm.title)},${quoted(arm.sources[arm.chunks.s.charCodeAt(index) - 48] || "")},${t},${arm.chunks.o[index]}`));
    save("chunks.csv", "text/csv", "arm,source,done_s,offset\n" + rows.join("\n") + "\n");
  });

  // What comes while the run goes on.
  const listen = () => {
    const feed = new EventSource(raw.feed);
    const append = (list, patch, scale) => {
      for (const key of ["t", "v"]) list[key].length = Math.min(list[key].length, patch.from);
      for (const t of patch.t) list.t.push(t / second);
      for (const v of patch.v) list.v.push(v / scale);
    };
    // Every patch says from where on it holds: nothing is doubled by hearing it twice.
    const take = (arm, patch) => {
      arm.bytes = patch.bytes;
      arm.end = patch.end / second;
      const { chunks } = arm, { from } = patch.chunks;
      if (from > chunks.t.length) throw new Error(`a gap of ${from - chunks.t.length} chunks`);
      chunks.t.length = chunks.o.length = from;
      chunks.s = chunks.s.slice(0, from) + patch.chunks.s;
      for (const t of patch.chunks.t) chunks.t.push(t / second);
      for (const o of patch.chunks.o) chunks.o.push(o);
      append(arm.buffer, patch.buffer, second);
      append(arm.frontier, patch.frontier, 1);
      append(arm.played, patch.played, 1);
      arm.segments.length = patch.segments.from;
      for (const one of patch.segments.list) arm.segments.push(segmentOf(one));
      for (const { width, from, counts, bytes, isTooLong } of patch.bins || []) {
        const bins = arm.bins.find((one) => one.width === width);
        if (!bins) continue;
        if (isTooLong) { arm.bins.splice(arm.bins.indexOf(bins), 1); continue; }
        counts.forEach((list, source) => { bins.counts[source].length = from; bins.counts[source].push(...list); });
        bytes.forEach((list, source) => { bins.bytes[source].length = from; bins.bytes[source].push(...list); });
      }
      arm.cells = patch.cells;
    };
    let drawn = 0, cost = 0, isDue = false;
    const redraw = () => {
      isDue = false;
      const now = performance.now();
      // A page that takes long to draw draws less often; it hears as often.
      if (now - drawn < cost * 3) { isDue = true; requestAnimationFrame(redraw); return; }
      end = Math.max(1, ...arms.map((arm) => arm.end || 0));
      slider.max = end;
      top = tops();
      for (const refresh of binned.concat(grown)) refresh();
      if (isWhole) zoom(0, end);
      if (follows) { clock.wall = end; if (!clock.runs) toggle(true); }
      for (const listener of listeners) listener(false);
      drawn = performance.now();
      cost = drawn - now;
    };
    feed.addEventListener("tick", (event) => {
      const message = JSON.parse(event.data);
      window.tributary.ticks = (window.tributary.ticks || 0) + 1;
      message.arms.forEach((patch, index) => patch && take(arms[index], patch));
      document.getElementById("verdict").textContent = message.verdict;
      const rows = document.getElementById("rows");
      rows.replaceChildren(...arms.map((arm) => element("tr", {}, ...(arm.cells || [arm.title]).map((text) => element("td", { text })))));
      if (!isDue) { isDue = true; requestAnimationFrame(redraw); }
    });
    // Another run has begun, or this one has ended: the server has another page for it.
    feed.addEventListener("turn", () => { feed.close(); location.reload(); });
    live.dataset.state = "open";
    feed.onerror = () => (live.dataset.state = "lost");
    feed.onopen = () => (live.dataset.state = "open");
  };
  if (raw.feed) listen();
  if (raw.presence) window.presence = new EventSource(raw.presence);

  // Where the address says.
  const hash = new URLSearchParams(location.hash.slice(1));
  if (hash.has("speed")) { clock.speed = Math.min(8, Math.max(0.25, Number(hash.get("speed")) || 1)); speed.value = clock.speed; }
  seek(Number(hash.get("t")) || 0, true);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => location.reload());
  requestAnimationFrame((now) => {
    window.tributary.drawn = performance.now() - began;
    last = now;
    frame(now);
  });
  // For tests: what is on the page, without a way in from outside.
  window.tributary = {
    clock, seek, toggle, arms, at, end, plots: timePlots, zoom,
    setSpeed: (value) => { clock.speed = value; speed.value = value; },
    sample: (on) => { sampling = on; }, samples: () => players.map((player) => player.samples), videos: () => players.map((player) => player.video),
  };
})();
