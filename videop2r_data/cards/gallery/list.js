// The list: only the rows that can be seen are in the document, whatever the number of samples.
const list = (() => {
  const scroller = byId("scroller");
  const spacer = byId("spacer");
  const live = new Map(); // place in the list -> node
  const spare = [];
  let height = 72;
  let selected = -1;
  let asked = false;

  function make() {
    const state = el("span", { class: "state" });
    const text = el("span", { class: "teaser", dir: "auto" });
    const facts = el("span", { class: "facts" });
    const score = el("span", { class: "score" });
    const mark = el("span", { class: "mark" });
    const node = el("div", { role: "option", class: "row" }, state, text, facts, score, mark);
    Object.assign(node, { state, text, facts, score, mark });
    return node;
  }

  function fill(node, place) {
    const row = filter.shown[place];
    const hidden = isBlind(row);
    const outcome = hidden ? "question" : head.outcomes[head.outcome[row]];
    node.row = row;
    node.id = `row-${row}`;
    node.dataset.outcome = outcome;
    node.style.transform = `translateY(${place * height}px)`;
    node.setAttribute("aria-setsize", filter.shown.length);
    node.setAttribute("aria-posinset", place + 1);
    node.setAttribute("aria-selected", row === selected);
    node.state.replaceChildren(icon({ accepted: "yes", rejected: "no", failed: "fail", question: "ask" }[outcome]));
    node.state.title = hidden ? "hidden until you mark it" : says(outcome);
    node.text.textContent = visible(head.teaser[row] || "(no question)");
    const reason = hidden || head.reason[row] < 0 ? "" : words(head.reasons[head.reason[row]].split("/")[1]);
    const kinds = [head.types[head.type[row]], head.kinds[head.kind[row]]];
    node.facts.replaceChildren(el("span", {}, visible(head.id[row])), ...(reason ? [el("span", { class: "why" }, reason)] : []),
      ...kinds.filter(Boolean).map((kind) => el("span", {}, kind)));
    const reward = head.reward[row];
    node.score.textContent = hidden || reward === null ? "" : reward.toFixed(2);
    const mark = marks.state(row);
    node.mark.dataset.mark = mark;
    node.mark.replaceChildren(...(mark ? [icon(mark === 1 ? "yes" : "no")] : []));
    node.mark.title = mark ? `you: ${saysOf(asking)[mark === 1]}` : "";
  }

  function draw() {
    asked = false;
    const first = Math.max(0, Math.floor(scroller.scrollTop / height) - 6);
    const last = Math.min(filter.shown.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / height) + 6);
    for (const [place, node] of live) {
      if (place < first || place >= last) {
        live.delete(place);
        spare.push(node);
        node.hidden = true;
      }
    }
    for (let place = first; place < last; place += 1) {
      if (live.has(place)) continue;
      const node = spare.pop() || spacer.appendChild(make());
      node.hidden = false;
      fill(node, place);
      live.set(place, node);
    }
  }

  function ask() {
    if (!asked) {
      asked = true;
      requestAnimationFrame(draw);
    }
  }

  scroller.addEventListener("scroll", ask, { passive: true });
  new ResizeObserver(ask).observe(scroller);
  spacer.addEventListener("click", (event) => {
    const node = event.target.closest(".row");
    if (node) select(node.row, { open: true });
  });

  return {
    // After a change of filters, marks or blindness.
    refresh({ top = false } = {}) {
      height = parseFloat(getComputedStyle(scroller).getPropertyValue("--row")) || height;
      spacer.style.height = `${filter.shown.length * height}px`;
      if (top) scroller.scrollTop = 0;
      for (const [place, node] of live) {
        if (place < filter.shown.length) fill(node, place);
        else {
          live.delete(place);
          spare.push(node);
          node.hidden = true;
        }
      }
      draw();
    },
    select(row) {
      selected = row;
      for (const node of live.values()) node.setAttribute("aria-selected", node.row === row);
      const place = placeOf(row);
      if (place === undefined) {
        scroller.removeAttribute("aria-activedescendant");
        return;
      }
      const top = place * height;
      const seen = scroller.clientHeight;
      const below = top + height - scroller.scrollTop - seen;
      const above = scroller.scrollTop - top;
      if (Math.max(above, below) > 2 * height) scroller.scrollTop = top - (seen - height) / 2; // from afar: to the middle
      else if (above > 0) scroller.scrollTop = top;
      else if (below > 0) scroller.scrollTop = top + height - seen;
      draw();
      scroller.setAttribute("aria-activedescendant", `row-${row}`);
    },
  };
})();

function words(reason) {
  return String(reason).replaceAll("_", " ");
}
