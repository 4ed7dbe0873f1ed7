// The sampled frames as pictures: out of the page, or out of the clip itself.
const sheetImages = new WeakMap();
function sheetImage(sheet) {
  if (!sheetImages.has(sheet)) {
    const image = new Image();
    image.src = sheet.uri;
    sheetImages.set(sheet, image.decode().then(() => image));
  }
  return sheetImages.get(sheet);
}

// The frames themselves: out of the sheet, or out of the clip by a second, unseen player.
async function drawStrip(cells, times, sheet, address, nudge, signal) {
  const canvases = cells.map((cell) => cell.firstChild);
  try {
    if (sheet && sheet.times.length === times.length) await stripFromSheet(canvases, sheet, signal);
    else if (address) await stripFromClip(canvases, times, address, nudge, signal);
  } catch {
    // the clip does not play: the player says so
  }
}

async function stripFromSheet(canvases, sheet, signal) {
  const image = await sheetImage(sheet);
  if (signal.aborted) return;
  const { columns, width, height } = sheet;
  canvases.forEach((canvas, i) => {
    Object.assign(canvas, { width, height });
    canvas.getContext("2d").drawImage(
      image, (i % columns) * width, Math.floor(i / columns) * height, width, height, 0, 0, width, height);
    canvas.dataset.drawn = "";
  });
}

async function stripFromClip(canvases, times, address, nudge, signal) {
  const video = el("video", { preload: "auto", playsinline: true });
  video.muted = true;
  const next = (event) => new Promise((done, fail) => {
    video.addEventListener(event, done, { once: true, signal });
    video.addEventListener("error", fail, { once: true, signal });
    signal.addEventListener("abort", () => fail(new Error("another sample")), { once: true });
  });
  try {
    const ready = next("loadeddata");
    video.src = address;
    await ready;
    const scale = Math.min(1, 240 / Math.max(video.videoWidth, video.videoHeight));
    for (let i = 0; i < times.length && !signal.aborted; i += 1) {
      const moved = next("seeked");
      video.currentTime = Math.min(times[i] + nudge, Math.max(0, video.duration - 1e-3));
      await moved;
      const canvas = canvases[i];
      canvas.width = Math.max(1, Math.round(video.videoWidth * scale));
      canvas.height = Math.max(1, Math.round(video.videoHeight * scale));
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      canvas.dataset.drawn = "";
    }
  } finally {
    video.removeAttribute("src");
    video.load();
  }
}
