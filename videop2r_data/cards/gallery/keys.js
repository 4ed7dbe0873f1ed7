// The keyboard: single letters, while nothing is being written.
const KEYS = [
  ["j", "next sample", () => move(1)],
  ["k", "previous sample", () => move(-1)],
  ["g", "first sample", () => selectPlace(0)],
  ["G", "last sample", () => selectPlace(filter.shown.length - 1)],
  ["/", "search", () => searchFor()],
  ["f", "filters", () => toggleFilters()],
  [" ", "play or pause", () => view.players.find((player) => player.plays)?.toggle(), "space"],
  [".", "next sampled frame", () => view.players.forEach((player) => player.step(1))],
  [",", "previous sampled frame", () => view.players.forEach((player) => player.step(-1))],
  ["y", "mark: observation sufficient, or true to the clip", () => markSample(true)],
  ["n", "mark: not sufficient, or not true", () => markSample(false)],
  ["q", "the other question: sufficient, or true to the clip", () => askOther()],
  ["m", "write a note", () => byId("note")?.focus()],
  ["u", "take the mark back", () => unmark()],
  ["c", "accepted and rejected side by side", () => toggleCompare()],
  ["]", "another one beside it", () => pairWith(1)],
  ["[", "the one before beside it", () => pairWith(-1)],
  ["l", "copy the link to this sample", () => copyLink()],
  ["b", "blind: hide verdicts until marked", () => toggleBlind()],
  ["x", "marks: export, import", () => showMarks()],
  ["t", "light, dark, as the system", () => nextTheme()],
  ["?", "this list", () => byId("help").showModal()],
];

function buildHelp() {
  byId("keys").append(...KEYS.flatMap(([key, what, , name]) => [
    el("dt", {}, el("kbd", {}, name ?? key)), el("dd", {}, what),
  ]), el("dt", {}, el("kbd", {}, "Esc")), el("dd", {}, "leave search or note, close"));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const writing = event.target.closest("input:not([type=checkbox]), textarea");
  if (event.key === "Escape") {
    if (writing) writing.blur();
    else if (!document.querySelector("dialog[open]")) leave();
    return;
  }
  if (writing) {
    if (event.key === "Enter") writing.blur();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  const arrows = { ArrowDown: "j", ArrowUp: "k", Home: "g", End: "G" };
  const inList = event.target === byId("scroller");
  const key = inList && arrows[event.key] ? arrows[event.key] : event.key;
  if (event.key === " " && event.target.closest("button, summary")) return; // the button's own
  if (event.key === "Enter" && inList && view.at >= 0) {
    select(view.at, { open: true });
    return;
  }
  const found = KEYS.find(([name]) => name === key);
  if (found) {
    event.preventDefault();
    found[2]();
  }
});
