// Buttons, dialogs and what the browser tells.
function wire() {
  const on = (id, act, event = "click") => byId(id).addEventListener(event, act);
  let waiting = 0;
  on("search", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 60);
  }, "input");
  on("clear", () => {
    clearFilters();
    changed({ top: true });
    highlight(byId("view"));
  });
  on("back", () => showScreen("list"));
  on("show-filters", toggleFilters);
  on("blind", toggleBlind);
  on("theme", nextTheme);
  on("show-marks", showMarks);
  on("show-help", () => byId("help").showModal());
  on("export", exportMarks);
  on("reviewer", () => store.set("p2r-gallery:reviewer", byId("reviewer").value.trim()), "input");
  on("advance", () => store.set("p2r-gallery:advance", byId("advance").checked ? "1" : "0"), "change");
  on("forget", () => {
    if (confirm(`Delete ${count(allMarks(), "mark")} of this data set from this browser?`)) {
      for (const book of everyBook) book.clear();
      byId("marks").close();
    }
  });
  on("import", async () => {
    const [file] = byId("import").files;
    if (!file) return;
    const { own, others, left } = await takeMarks(await file.text());
    byId("import").value = "";
    byId("marks").close();
    const said = [`${count(own, "mark")} of your own`, `${number.format(others)} of other reviewers`, ...(left ? [`${count(left, "line")} of other words left out`] : [])];
    toast(`Taken in: ${said.join(", ")}${others && !marks.reviewer() ? "; write your name first to take your own" : ""}`);
  }, "change");
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }
  document.addEventListener("pointerdown", (event) => {
    const open = document.body.classList.contains("filters-open");
    if (open && !event.target.closest("#filters, #show-filters")) toggleFilters();
  });
  document.addEventListener("marks-changed", async () => {
    showMarkCount();
    const writing = document.activeElement?.id === "note";
    changed();
    if (view.at < 0 || writing) return;
    const at = view.at;
    const { row } = await load(at);
    if (at !== view.at) return;
    document.querySelector(".markbar")?.replaceWith(markBar(at, row));
    if (view.hid !== isBlind(at)) draw();
    else drawClaims();
  });
  document.addEventListener("search-ready", () => filter.terms.length && changed());
  window.addEventListener("hashchange", () => {
    if (location.hash === address()) return;
    const asks = readAddress();
    if (asks.row === undefined) return;
    takeFilters(asks);
    changed();
    select(asks.row, { open: true, pair: asks.other !== null, other: asks.other });
  });
  window.addEventListener("beforeunload", (event) => {
    if (!store.kept && !everyBook.every((book) => book.handedOn)) event.preventDefault();
  });
}
