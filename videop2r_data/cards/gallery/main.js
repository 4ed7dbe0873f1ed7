// What is on the screen, and how it changes.
const view = { at: -1, pair: null, others: [], players: [], turn: 0, hid: false };
let blind = store.get("p2r-gallery:blind") === "1";

function isBlind(row) {
  return blind && marks.state(row) === 0 && head.markable[row] === 1;
}

// #sample_id, then what else is on the screen: with=other of a pair, q=search, and one NAME=choice for each choice.
const written = (id) => encodeURIComponent(id).replaceAll("%2F", "/");

function address() {
  const parts = [view.at < 0 ? "" : written(head.id[view.at])];
  if (view.pair !== null) parts.push(`with=${written(view.others[view.pair]?.row === undefined ? "" : head.id[view.others[view.pair].row])}`);
  const query = byId("search").value.trim();
  if (query) parts.push(`q=${written(query)}`);
  for (const facet of facets) {
    if (blind && facet.tells) continue;
    for (const value of facet.chosen) parts.push(`${facet.key}=${written(facet.names[value])}`);
  }
  return `#${parts.join("&")}`;
}

function readAddress() {
  const [first, ...rest] = location.hash.slice(1).split("&");
  const decode = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };
  const found = { row: rowOf.get(decode(first)), other: null, query: "", chosen: [], asked: first !== "" };
  for (const part of rest) {
    const at = part.indexOf("=");
    const [name, value] = [part.slice(0, at), decode(part.slice(at + 1))];
    const facet = facets.find(({ key }) => key === name);
    if (name === "with") found.other = value;
    else if (name === "q") found.query = value;
    else if (facet && facet.names.includes(value)) found.chosen.push([facet, facet.names.indexOf(value)]);
  }
  return found;
}

// Filters and search as a link has them.
function takeFilters({ query, chosen }) {
  for (const facet of facets) facet.chosen.clear();
  for (const [facet, value] of chosen) facet.chosen.add(value);
  byId("search").value = query;
  filter.terms = termsOf(query);
  if (filter.terms.length) for (let at = 0; at < chunks; at += 1) makeHaystacks(at);
}

function writeAddress() {
  try {
    history.replaceState(null, "", address());
  } catch {
    location.hash = address();
  }
}

function select(row, { open = false, pair = view.pair !== null, other = null } = {}) {
  if (row === undefined || row < 0 || row >= size) return;
  view.at = row;
  if (isBlind(row)) pair = false; // the side would tell
  view.others = pair ? counterparts(row) : [];
  const wanted = other === null ? -1 : view.others.findIndex((found) => head.id[found.row] === other);
  view.pair = pair ? Math.max(0, wanted) : null;
  if (open) showScreen("sample");
  list.select(row);
  writeAddress();
  draw();
}

async function draw() {
  const turn = (view.turn += 1);
  const at = view.at;
  view.hid = isBlind(at);
  const mate = view.pair === null ? null : (view.others[view.pair]?.row ?? null);
  const found = await Promise.all([load(at), mate === null ? null : load(mate)]);
  if (turn !== view.turn) return; // another sample was chosen meanwhile
  const node = byId("view");
  for (const player of view.players) player.stop();
  const players = [createPlayer(at, found[0].row, found[0].sheet)];
  const own = sampleBar();
  if (view.pair === null) {
    node.replaceChildren(own, wholeOf(at, found[0].row, players[0]), markBar(at, found[0].row));
  } else {
    const sides = [sideOf(at, found[0].row, players[0], true)];
    if (mate !== null) {
      players.push(createPlayer(mate, found[1].row, found[1].sheet));
      sides.push(sideOf(mate, found[1].row, players[1], false));
    }
    if (!accepted(at)) sides.reverse(); // accepted stands left
    node.replaceChildren(own, pairBar(at, view.others, view.pair), el("div", { class: "pair" }, ...sides), markBar(at, found[0].row));
  }
  node.scrollTop = 0;
  node.dataset.sample = head.id[at];
  document.title = `${head.id[at]} · ${head.title}`;
  view.players = players;
  highlight(node);
}

function wholeOf(at, row, player) {
  return el("div", { class: "sample" }, headOf(at, row),
    el("div", { class: `halves${player.node ? "" : " no-media"}` },
      player.node ? el("div", { class: "left" }, player.node, player.strip) : null,
      el("div", { class: "right" }, questionOf(row), traceOf(row, player), verdictOf(at, row, player), originOf(at, row))));
}

function sampleBar() {
  const place = placeOf(view.at);
  const button = (name, label, act, pressed) => el("button", {
    type: "button", class: "icon", "aria-label": label, title: label, "aria-pressed": pressed ?? null, on: { click: act },
  }, icon(name));
  return el("nav", { class: "samplebar", "aria-label": "Sample" },
    button("back", "Previous (k)", () => move(-1)), button("next", "Next (j)", () => move(1)),
    el("span", { class: "place" }, place === undefined ? "not among the filtered" : `${number.format(place + 1)} of ${number.format(filter.shown.length)}`),
    el("span", { class: "grow" }), button("pair", "Accepted and rejected side by side (c)", toggleCompare, view.pair !== null),
    button("link", "Copy the link (l)", copyLink));
}

// The searched words, painted over the text without touching it.
function highlight(node) {
  if (!window.CSS?.highlights) return;
  CSS.highlights.clear();
  if (!filter.terms.length) return;
  const ranges = [];
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  while (walker.nextNode() && ranges.length < 500) {
    const text = walker.currentNode.data.toLowerCase();
    if (text.length !== walker.currentNode.data.length) continue;
    for (const term of filter.terms) {
      for (let from = text.indexOf(term); from >= 0; from = text.indexOf(term, from + term.length)) {
        const range = new Range();
        range.setStart(walker.currentNode, from);
        range.setEnd(walker.currentNode, from + term.length);
        ranges.push(range);
      }
    }
  }
  CSS.highlights.set("hit", new Highlight(...ranges));
}

// `top`: filters or search are others now, and the sample on the screen follows them.
function changed({ top = false } = {}) {
  applyFilter();
  showFacets();
  list.refresh({ top });
  if (view.at < 0) return;
  if (top && filter.shown.length && placeOf(view.at) === undefined) {
    select(filter.shown[0]);
    return;
  }
  if (top) writeAddress();
  list.select(view.at);
  const place = document.querySelector(".place");
  if (place) place.replaceWith(sampleBar().querySelector(".place"));
}

function selectPlace(place) {
  if (filter.shown.length) select(filter.shown[Math.max(0, Math.min(filter.shown.length - 1, place))]);
}

function move(way) {
  const place = placeOf(view.at);
  if (place !== undefined) return selectPlace(place + way);
  // the sample on the screen is filtered out: go on from where it would stand
  const rank = rankOf(view.at);
  let next = filter.shown.findIndex((row) => rankOf(row) > rank);
  if (next < 0) next = filter.shown.length;
  return selectPlace(way > 0 ? next : next - 1);
}

function markSample(sufficient) {
  if (view.at < 0) return;
  const cannot = cannotMark(view.at);
  if (cannot) {
    toast(cannot);
    return;
  }
  marks.set(view.at, sufficient);
  const claims = asking === "faithfulness" && head.claims && head.claims[head.claimed[view.at]] !== "no claim"; // still to be labelled
  if (store.get("p2r-gallery:advance") === "1" && !claims) move(1);
}

function unmark() {
  marks.remove(view.at);
}

function toggleCompare() {
  if (isBlind(view.at)) {
    toast("Blind: mark this sample first");
    return;
  }
  select(view.at, { pair: view.pair === null });
}

function pairWith(way) {
  if (view.pair === null) toggleCompare();
  else if (view.others.length) {
    view.pair = (view.pair + way + view.others.length) % view.others.length;
    writeAddress();
    draw();
  }
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    toast("Link copied");
  } catch {
    toast("The link stands in the address bar");
  }
}

function showScreen(name) {
  document.body.dataset.screen = name;
}

function toggleFilters() {
  const open = document.body.classList.toggle("filters-open");
  byId("show-filters").setAttribute("aria-expanded", open);
}

function leave() {
  if (document.body.classList.contains("filters-open")) toggleFilters();
  else if (view.pair !== null) toggleCompare();
  else showScreen("list");
}

function searchFor() {
  showScreen("list");
  byId("search").focus();
  byId("search").select();
}

function search() {
  const terms = termsOf(byId("search").value);
  if (terms.join("\n") === filter.terms.join("\n")) return;
  filter.terms = terms;
  if (terms.length) for (let at = 0; at < chunks; at += 1) makeHaystacks(at);
  changed({ top: true });
  highlight(byId("view"));
}

function toggleBlind() {
  blind = !blind;
  store.set("p2r-gallery:blind", blind ? "1" : "0");
  byId("blind").setAttribute("aria-pressed", blind);
  toast(blind ? "Blind: mixed order, verdicts hidden until you mark" : "Verdicts are shown");
  changed({ top: true });
  draw();
}

const THEMES = ["system", "light", "dark"];
function nextTheme() {
  const at = THEMES.indexOf(store.get("p2r-gallery:theme") || "system");
  const next = THEMES[(at + 1) % THEMES.length];
  store.set("p2r-gallery:theme", next);
  showTheme();
  toast({ system: "As the system", light: "Light", dark: "Dark" }[next]);
}

function showTheme() {
  document.documentElement.dataset.theme = store.get("p2r-gallery:theme") || "system";
}

function showMarkCount() {
  byId("mark-count").hidden = allMarks() === 0;
  byId("mark-count").textContent = allMarks();
}

function begin() {
  showTheme();
  byId("title").textContent = head.title;
  byId("subtitle").textContent = `${head.name} · ${head.digest.slice(0, 12)}`;
  byId("blind").setAttribute("aria-pressed", blind);
  buildFacets();
  buildHelp();
  wire();
  showMarkCount();
  const asks = readAddress();
  takeFilters(asks);
  applyFilter();
  showFacets();
  list.refresh();
  const { row, other, asked } = asks;
  if (row !== undefined) select(row, { open: true, pair: other !== null, other });
  else if (size) select(filter.shown.length ? filter.shown[0] : 0, {});
  else byId("view").replaceChildren(el("p", { class: "empty" }, "This data set has no rows."));
  if (asked && row === undefined) toast("The sample of this link is not on this page");
  if (head.unmatched) toast(`${count(head.unmatched, "label")} speak of words that are not on this page`);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", warmSearch);
  else warmSearch();
}

begin();
