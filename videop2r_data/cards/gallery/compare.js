// Accepted and rejected side by side: a sample beside the nearest one of the other verdict.
const accepted = (row) => head.outcome[row] === 0;

// The same clip first, then the same type of question from the same source, then the type alone; near ones first.
function counterparts(at) {
  const found = [];
  for (let row = 0; row < size; row += 1) {
    if (accepted(row) === accepted(at)) continue;
    let near = 0;
    if (head.clip[row] >= 0 && head.clip[row] === head.clip[at]) near = 4;
    if (head.type[row] === head.type[at]) near += head.source[row] === head.source[at] ? 2 : 1;
    if (near) found.push([near, row]);
  }
  const away = (row) => Math.abs(row - at);
  found.sort((a, b) => b[0] - a[0] || away(a[1]) - away(b[1]) || a[1] - b[1]);
  return found.slice(0, 200).map(([near, row]) => ({ row, why: near >= 4 ? "same clip" : near === 2 ? "same type and source" : "same type" }));
}

function sideOf(at, row, player, current) {
  return el("section", { class: `side${current ? " current" : ""}`, "data-side": isBlind(at) ? "question" : accepted(at) ? "accepted" : "rejected" },
    headOf(at, row), el("div", { class: "media" }, player.node ?? el("p", { class: "note" }, "A question without a clip."), player.strip),
    questionOf(row), traceOf(row, player), verdictOf(at, row, player));
}

function pairBar(at, others, place) {
  const move = (way, name, label) => el("button", { type: "button", class: "icon", "aria-label": label, title: label, on: { click: () => pairWith(way) } }, icon(name));
  return el("div", { class: "pairbar" },
    el("p", {}, others.length
      ? `${capital(says(accepted(at) ? "rejected" : "accepted"))} beside it: ${others[place].why}, ${place + 1} of ${others.length}`
      : "No sample of the other verdict has its clip or its type."),
    others.length > 1 ? el("span", {}, move(-1, "back", "Another one, back ([)"), move(1, "next", "Another one (])")) : null);
}
