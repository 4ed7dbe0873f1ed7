// The choices beside the list.
const facetNodes = new Map();

function buildFacets() {
  const box = byId("filters");
  for (const facet of facets) {
    const there = new Set(facet.names.keys());
    if (facet.key === "outcome") for (const value of facet.names.keys()) if (!head.outcome.includes(value)) there.delete(value);
    const options = facet.names.map((name, value) => {
      const number = el("span", { class: "n" });
      const label = facet.key === "reason" ? reasonLabel(name) : [said("span", name || "(none)", { class: "what" })];
      const node = el("button", {
        type: "button", class: "choice", "aria-pressed": "false", "data-facet": facet.key, "data-value": name,
        on: { click: () => choose(facet, value) },
      }, ...label, number);
      node.number = number;
      return node;
    });
    facetNodes.set(facet.key, options);
    if (there.size < 2 && !["mark", "people"].includes(facet.key)) continue;
    const body = el("div", { class: "choices" }, ...orderOf(facet).filter((value) => there.has(value)).map((value) => options[value]));
    facet.node = el("details", { open: true, "data-facet": facet.key }, el("summary", {}, facet.title), body);
    box.append(facet.node);
  }
}

function reasonLabel(name) {
  const [stage, reason] = name.split("/");
  return [el("span", { class: "what" }, words(reason)), el("small", {}, stage)];
}

// Reasons by the step that gave them; the rest as the data set has it.
function orderOf(facet) {
  const order = [...facet.names.keys()];
  if (facet.key !== "reason") return order;
  const stage = (value) => head.stages.indexOf(facet.names[value].split("/")[0]);
  const many = new Map();
  for (const value of head.reason) many.set(value, (many.get(value) ?? 0) + 1);
  return order.sort((a, b) => stage(a) - stage(b) || many.get(b) - many.get(a) || a - b);
}

function choose(facet, value) {
  if (!facet.chosen.delete(value)) facet.chosen.add(value);
  changed({ top: true });
}

function showFacets() {
  for (const facet of facets) {
    // while nobody may be told, what tells is not there; nor are other reviewers before their marks are imported
    if (facet.node) facet.node.hidden = (blind && facet.tells) || (facet.key === "people" && !marks.hasOthers)
      || (facet.key === "truth" && asking === "sufficiency" && !books.faithfulness.size);
    facetNodes.get(facet.key).forEach((node, value) => {
      const on = facet.chosen.has(value);
      const left = facet.counts[value];
      node.setAttribute("aria-pressed", on);
      node.number.textContent = number.format(left);
      node.classList.toggle("none", left === 0 && !on);
    });
  }
  const chosen = chosenCount();
  byId("filter-count").hidden = chosen === 0;
  byId("filter-count").textContent = chosen;
  byId("clear").hidden = chosen === 0 && filter.terms.length === 0;
  byId("count").textContent = filter.shown.length === size
    ? `${count(size, "sample")}${head.total > size ? ` of ${number.format(head.total)}` : ""}`
    : `${number.format(filter.shown.length)} of ${count(size, "sample")}`;
}
