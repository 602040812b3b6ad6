"use strict";
// Plays the movie as it arrives, and tells the server what the player did and when, in time of the run.
(async () => {
  const video = document.querySelector("video"), state = document.getElementById("state"), list = document.getElementById("stalls");
  // Where this page's clock stands beside the run's: the question that was answered soonest says it best.
  let offset = 0, best = Infinity;
  for (let count = 0; count < 10; count++) {
    const asked = performance.now();
    const reply = await fetch("clock");
    if (!reply.ok) { await new Promise((go) => setTimeout(go, 100)); count--; continue; }
    const run = Number(await reply.text()) / 1e6, answered = performance.now();
    if (answered - asked < best) { best = answered - asked; offset = run - (asked + answered) / 2; }
  }
  // Which of several pages, or of one that was loaded anew, says it.
  const page = crypto.getRandomValues(new Uint32Array(1))[0];
  let began = null, count = 0, queue = Promise.resolve();
  const now = (event) => event.timeStamp + offset;
  const tell = (event) => {
    const ahead = [...Array(video.buffered.length).keys()].map((index) => video.buffered.end(index)).find((end) => end >= video.currentTime) ?? 0;
    const line = { t_ns: Math.round(now(event) * 1e6), type: event.type, media_ns: Math.round(video.currentTime * 1e9), buffered_ns: Math.round(ahead * 1e9), clock_error_ns: Math.round(best * 5e5), page };
    // One after the other, so that the log has them in order.
    queue = queue.then(() => fetch("player", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(line) })).catch(() => {});
    state.textContent = `${event.type} at ${video.currentTime.toFixed(2)} s`;
    if (event.type === "waiting" && !video.seeking) began = now(event);
    if (event.type === "playing" && began !== null) {
      count++;
      const item = document.createElement("li");
      item.textContent = `waited ${((now(event) - began) / 1000).toFixed(2)} s at ${video.currentTime.toFixed(2)} s`;
      list.append(item);
      began = null;
    }
  };
  for (const type of ["play", "playing", "waiting", "pause", "seeking", "seeked", "ended", "stalled", "error", "loadedmetadata", "canplay"]) video.addEventListener(type, tell);
  // Play is pressed when the player says that it can: until then it fetches what it needs and starts its decoders.
  video.addEventListener("canplay", () => video.play().catch((error) => (state.textContent = `${error.message}: press play`)), { once: true });
  video.src = document.body.dataset.movie;
  window.presence = new EventSource("presence");
})();
