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
    if (confirm(`Delete ${count(marks.size, "mark")} of this data set from this browser?`)) {
      marks.clear();
      byId("marks").close();
    }
  });
  on("import", async () => {
    const [file] = byId("import").files;
    if (!file) return;
    const { taken, left } = await marks.take(await file.text());
    byId("import").value = "";
    byId("marks").close();
    toast(`${count(taken, "mark")} taken in${left ? `, ${count(left, "line")} of other words left out` : ""}`);
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
    if (blind) draw();
  });
  document.addEventListener("search-ready", () => filter.terms.length && changed());
  window.addEventListener("hashchange", () => {
    const { row, other } = readAddress();
    if (row !== undefined && location.hash !== address()) {
      select(row, { open: true, pair: other !== null, other });
    }
  });
  window.addEventListener("beforeunload", (event) => {
    if (!store.kept && !marks.handedOn) event.preventDefault();
  });
}
