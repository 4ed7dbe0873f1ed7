// Small helpers. Text becomes text: nothing here parses HTML.
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (key.startsWith("aria-")) node.setAttribute(key, String(value)); // there "false" says something too
    else if (value === false) continue;
    else if (key === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// Control characters and direction overrides as signs that can be seen; the text itself stays as it is.
const STEERING = /[\u{0}-\u{8}\u{b}-\u{1f}\u{7f}-\u{9f}\u{61c}\u{2028}-\u{202e}\u{2066}-\u{2069}\u{fff9}-\u{fffb}\u{d800}-\u{dfff}\u{e0000}-\u{e007f}]/gu;
const visible = (text) => String(text).replaceAll("\r\n", "\n").replace(STEERING, (c) => {
  const code = c.codePointAt(0);
  return code < 32 ? String.fromCharCode(0x2400 + code) : code === 127 ? "\u2421" : "\ufffd";
});

// A text of the data set: its own direction, and no influence on what stands around it.
const said = (name, text, attributes = {}) => el(name, { dir: "auto", ...attributes }, visible(text));

function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

const number = new Intl.NumberFormat("en");
const count = (n, one, many = `${one}s`) => `${number.format(n)} ${n === 1 ? one : many}`;
const seconds = (t) => `${t.toFixed(2)} s`;

let toastTimer = 0;
function toast(text) {
  const node = byId("toast");
  node.textContent = text;
  node.classList.add("on");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => node.classList.remove("on"), 2600);
}

// What this browser keeps. Where it keeps nothing, a page's life has to do.
const store = (() => {
  let works = true;
  try {
    localStorage.setItem("p2r-gallery:try", "1");
    localStorage.removeItem("p2r-gallery:try");
  } catch {
    works = false;
  }
  const memory = new Map();
  return {
    get kept() {
      return works;
    },
    get(key) {
      try {
        return works ? localStorage.getItem(key) : (memory.get(key) ?? null);
      } catch {
        return memory.get(key) ?? null;
      }
    },
    set(key, value) {
      memory.set(key, value);
      if (!works) return;
      try {
        localStorage.setItem(key, value);
      } catch {
        works = false; // full, or forbidden meanwhile
      }
    },
  };
})();
