// A clip with the frames that the model saw: ticks on its timeline, and the frames themselves below it.
const PICTURES = /\.(png|jpe?g|gif|webp|avif|bmp|apng)$/i;

function numbersIn(text, wanted) {
  const found = (String(text).match(/-?\d+(?:\.\d+)?/g) || []).map(Number);
  return found.length === wanted ? found : null;
}

// The frames of a row as it was built; else those of its sheet.
function framesOf(row, sheet) {
  if (row.times) return { times: row.times, indices: row.frames };
  if (sheet) return { times: sheet.times, indices: sheet.frames };
  return { times: [], indices: [] };
}

function createPlayer(at, row, sheet) {
  const clip = head.clip[at];
  if (clip < 0) return { node: null, strip: null, plays: false, toggle() {}, step() {}, seek() {}, stop() {} };
  const address = addressOf(clip);
  const path = head.clips[clip][1];
  const picture = head.kinds[head.kind[at]] === "image" || PICTURES.test(path);
  const moving = head.kinds[head.kind[at]] === "video"; // a GIF plays, but stops nowhere: its frames do better
  if (picture && address && !(moving && sheet)) return pictureOf(at, row, address, path);
  return clipOf(at, row, sheet, picture ? null : address, path);
}

// The stage takes the shape of what it shows; the next one begins with it, so that little jumps.
let lastShape = "4 / 3";
function shape(stage, width, height) {
  if (width > 0 && height > 0) lastShape = String(Math.min(2.4, Math.max(0.9, width / height)));
  stage.style.aspectRatio = lastShape;
}

// In the narrow label of a frame; its tooltip has the hundredths.
const shortTime = (time) => `${time.toFixed(time < 10 ? 2 : time < 100 ? 1 : 0)}s`;

function absent(path, why, hint) {
  return el("div", { class: "absent" }, el("p", {}, why), said("code", path), el("p", { class: "note" }, hint));
}

function pictureOf(at, row, address, path) {
  const image = el("img", { src: address, alt: "the picture that the question is about", decoding: "async" });
  const stage = el("div", { class: "stage" }, image);
  shape(stage, 0, 0);
  image.addEventListener("error", () => {
    stage.replaceChildren(absent(path, "The picture cannot be shown.", "It has moved, or this browser does not know its format."));
  });
  image.addEventListener("load", () => {
    shape(stage, image.naturalWidth, image.naturalHeight);
    drawBoxes(stage, at, row, image.naturalWidth, image.naturalHeight);
  });
  return { node: el("figure", { class: "player" }, stage), strip: null, plays: false, toggle() {}, step() {}, seek() {}, stop() {} };
}

// Boxes of a spatial question, if they fit into the picture as its pixels.
function drawBoxes(stage, at, row, width, height) {
  if (head.types[head.type[at]] !== "spatial grounding" || stage.querySelector(".boxes")) return;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("class", "boxes");
  const told = [];
  for (const [kind, text] of [["reference", row.reference], ["answer", answerOf(row)]]) {
    const box = numbersIn(text, 4);
    if (!box || box[2] <= box[0] || box[3] <= box[1] || box[0] < 0 || box[2] > width || box[3] > height) continue;
    const rect = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ x: box[0], y: box[1], width: box[2] - box[0], height: box[3] - box[1] })) {
      rect.setAttribute(name, value);
    }
    rect.setAttribute("class", kind);
    rect.setAttribute("vector-effect", "non-scaling-stroke");
    svg.append(rect);
    told.push(el("span", { class: `key ${kind}` }, kind === "reference" ? "correct box" : "model's box"));
  }
  if (told.length) {
    stage.append(svg);
    stage.after(el("p", { class: "legend" }, ...told));
  }
}

function clipOf(at, row, sheet, address, path) {
  const { times, indices } = framesOf(row, sheet);
  // The part of the clip that the question is about: times that a model states count from where it begins.
  const [from, until] = [row.part?.[0] ?? 0, row.part?.[1] ?? Infinity];
  const picture = head.kinds[head.kind[at]] === "image";
  const video = el("video", { muted: true, loop: true, playsinline: true, preload: "auto", "aria-label": "the clip" });
  video.muted = true;
  const poster = el("canvas", { class: "poster", hidden: true });
  const stage = el("div", { class: "stage" }, video, poster);
  shape(stage, 0, 0);
  const play = el("button", { type: "button", class: "icon", "aria-label": "Play or pause (space)" }, icon("play"));
  const clock = el("span", { class: "clock" }, "0.00", el("small", {}, " s"));
  const head_ = el("i", { class: "playhead" });
  const line = el("div", { class: "timeline", role: "slider", tabindex: "0", "aria-label": "Time", "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0 }, head_);
  const speed = el("button", { type: "button", class: "quiet", "aria-label": "Speed" }, "1×");
  const full = el("button", { type: "button", class: "icon", "aria-label": "Full screen" }, icon("full"));
  const controls = el("div", { class: "controls" }, play, line, clock, speed, full);
  const node = el("figure", { class: "player" }, stage, controls);
  const cells = times.map((time, i) => {
    const canvas = el("canvas", { width: 96, height: 96, "aria-hidden": "true" });
    const label = el("span", {}, shortTime(time));
    return el("button", {
      type: "button", class: "frame", "aria-label": `Go to frame ${indices[i]} at ${seconds(time)}`, title: `frame ${indices[i]} at ${seconds(time)}`,
      on: { click: () => seek(time, true) },
    }, canvas, label, el("small", {}, `#${indices[i]}`));
  });
  const strip = cells.length ? el("div", { class: "strip", role: "group", "aria-label": "Sampled frames", tabindex: "0" }, ...cells) : null;
  const stopped = new AbortController();
  let mode = address ? "video" : "frames"; // frames: the clip is away, its sheet stands in
  let now = from;
  let playing = false;
  let last = 0;
  let current = -1;

  const end = () => (mode === "video" && Number.isFinite(video.duration) ? video.duration : (times.at(-1) ?? 0) + frameGap());
  const frameGap = () => (times.length > 1 ? (times.at(-1) - times[0]) / (times.length - 1) : 1);

  function layTicks() {
    const length = end();
    line.replaceChildren(head_);
    if (!(length > 0)) return;
    const lay = (kind, title, begin, last) => {
      const band = el("i", { class: `band ${kind}`, title });
      band.style.left = `${100 * Math.min(1, Math.max(0, begin / length))}%`;
      band.style.right = `${100 * (1 - Math.min(1, Math.max(0, last / length)))}%`;
      line.append(band);
    };
    if (row.part) lay("part", "the part that the question is about", from, until);
    for (const [kind, text] of intervals(at, row)) {
      const span = numbersIn(text, 2);
      if (!span || span[1] <= span[0]) continue;
      lay(kind, `${kind === "reference" ? "correct" : "model's"} span ${text}`, from + span[0], from + span[1]);
    }
    times.forEach((time, i) => {
      const tick = el("i", { class: "stop", title: `frame ${indices[i]} at ${seconds(time)}` });
      tick.style.left = `${Math.min(100, (100 * time) / length)}%`;
      line.append(tick);
    });
    line.setAttribute("aria-valuemax", length.toFixed(2));
    show();
  }

  // The tick whose frame is on the screen: the last one that is not later.
  function frameAt(time) {
    let found = -1;
    for (let i = 0; i < times.length && times[i] <= time + 1e-3; i += 1) found = i;
    return found;
  }

  function show() {
    if (mode === "video") now = video.currentTime;
    if (mode === "video" && playing && now > until) now = video.currentTime = from;
    const length = end();
    head_.style.left = length > 0 ? `${Math.min(100, (100 * now) / length)}%` : "0";
    clock.firstChild.data = now.toFixed(2);
    clock.lastChild.textContent = ` / ${seconds(length)}`;
    line.setAttribute("aria-valuenow", now.toFixed(2));
    line.setAttribute("aria-valuetext", seconds(now));
    const frame = frameAt(now);
    if (frame !== current) {
      if (current >= 0) cells[current].classList.remove("on");
      if (frame >= 0) cells[frame].classList.add("on");
      current = frame;
      if (mode === "frames" && sheet) paint(poster, frame);
    }
  }

  function seek(time, pause) {
    if (pause) setPlaying(false);
    // A little behind the border of the frame: the border itself may still show the one before.
    now = Math.max(0, Math.min(time + (pause ? nudge() : 0), Math.max(0, end() - 1e-3)));
    if (mode === "video") video.currentTime = now;
    show();
  }

  const nudge = () => (row.fps ? Math.min(0.25 / row.fps, 0.02) : 0.004);

  function setPlaying(on) {
    playing = on && mode !== "none";
    if (mode === "video") {
      if (playing) video.play().catch(() => setPlaying(false));
      else video.pause();
    }
    play.replaceChildren(icon(playing ? "pause" : "play"));
    last = performance.now();
    if (playing) requestAnimationFrame(tick);
  }

  function tick(time) {
    if (!playing || stopped.signal.aborted) return;
    if (mode === "frames") {
      now += ((time - last) / 1000) * video.playbackRate;
      if (now >= end()) now = from;
      last = time;
    }
    show();
    requestAnimationFrame(tick);
  }

  async function paint(canvas, frame) {
    const image = await sheetImage(sheet);
    if (frame < 0 || stopped.signal.aborted) return;
    const { columns, width, height } = sheet;
    Object.assign(canvas, { width, height });
    canvas.getContext("2d").drawImage(
      image, (frame % columns) * width, Math.floor(frame / columns) * height, width, height, 0, 0, width, height);
  }

  // No clip: the sheet plays in its place; no sheet either: say so.
  function fallBack(why, hint) {
    mode = sheet ? "frames" : "none";
    video.remove();
    full.remove();
    if (mode === "none") {
      stage.replaceChildren(absent(path, why, hint));
      controls.remove();
      strip?.classList.add("bare");
      return;
    }
    poster.hidden = false;
    shape(stage, sheet.width, sheet.height);
    stage.append(el("span", { class: "hint" }, "sampled frames only"));
    layTicks();
    paint(poster, 0);
  }

  play.addEventListener("click", () => setPlaying(!playing));
  stage.addEventListener("click", () => setPlaying(!playing));
  full.addEventListener("click", () => stage.requestFullscreen?.().catch(() => {}));
  speed.addEventListener("click", () => {
    const steps = [1, 0.5, 0.25, 2];
    video.playbackRate = steps[(steps.indexOf(video.playbackRate) + 1) % steps.length];
    speed.textContent = `${video.playbackRate}×`;
  });
  const drag = (event) => {
    const box = line.getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * end(), false);
  };
  line.addEventListener("pointerdown", (event) => {
    line.setPointerCapture(event.pointerId);
    drag(event);
  });
  line.addEventListener("pointermove", (event) => {
    if (line.hasPointerCapture(event.pointerId)) drag(event);
  });
  line.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (way) {
      event.preventDefault();
      seek(now + way * frameGap() * 0.25, false);
    }
  });
  video.addEventListener("loadedmetadata", () => {
    shape(stage, video.videoWidth, video.videoHeight);
    if (from > 0) seek(from, false);
    layTicks();
    drawBoxes(stage, at, row, video.videoWidth, video.videoHeight);
  });
  video.addEventListener("timeupdate", show);
  video.addEventListener("seeked", show);
  video.addEventListener("error", () => {
    if (!stopped.signal.aborted) fallBack("This browser cannot play the clip.", "Make the page again with --frames: the sampled frames then stand in it.");
  });
  if (address) video.src = address;
  else fallBack(`The ${picture ? "picture" : "clip"} is not here.`, "Name its folder with --media, or put its frames into the page with --frames.");
  if (strip) drawStrip(cells, times, sheet, address, nudge(), stopped.signal);
  return {
    node,
    strip,
    get plays() {
      return mode !== "none";
    },
    toggle: () => setPlaying(!playing),
    // A time in seconds, or a share of the clip or of its part.
    seek: (at, share) => seek(from + (share ? at * (Math.min(until, end()) - from) : at), true),
    step(way) {
      if (!times.length) return;
      seek(times[Math.max(0, Math.min(times.length - 1, frameAt(now) + way))], true);
    },
    stop() {
      stopped.abort();
      playing = false;
      video.pause();
      video.removeAttribute("src");
      video.load();
    },
  };
}

function intervals(at, row) {
  if (head.types[head.type[at]] !== "temporal grounding") return [];
  return [["reference", row.reference], ["answer", answerOf(row)]];
}
