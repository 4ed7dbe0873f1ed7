// What the reviewer says: kept in this browser under the digest of the data set, handed on as JSON Lines.
const marks = (() => {
  const key = `p2r-gallery:marks:${head.digest}`;
  const states = new Uint8Array(size); // 0 none, 1 sufficient, 2 not
  let all = read();
  let handedOn = true;

  function read() {
    try {
      const found = JSON.parse(store.get(key) || "{}");
      const good = Object.entries(found).filter(
        ([, mark]) => mark && typeof mark.sufficient === "boolean" && typeof mark.note === "string");
      return new Map(good);
    } catch {
      return new Map();
    }
  }

  function refresh() {
    states.fill(0);
    for (const [id, mark] of all) if (rowOf.has(id)) states[rowOf.get(id)] = mark.sufficient ? 1 : 2;
  }

  function save() {
    store.set(key, JSON.stringify(Object.fromEntries(all)));
    handedOn = false;
    refresh();
    document.dispatchEvent(new Event("marks-changed"));
  }

  refresh();
  window.addEventListener("storage", (event) => {
    if (event.key !== key) return; // another tab of this page marked something
    all = read();
    refresh();
    document.dispatchEvent(new Event("marks-changed"));
  });
  return {
    state: (row) => states[row],
    get: (row) => all.get(head.id[row]) ?? null,
    get size() {
      return all.size;
    },
    get sufficient() {
      return [...all.values()].filter((mark) => mark.sufficient).length;
    },
    get handedOn() {
      return handedOn || all.size === 0;
    },
    reviewer: () => store.get("p2r-gallery:reviewer") || "",
    set(row, sufficient) {
      all.set(head.id[row], { sufficient, note: this.get(row)?.note ?? "" });
      save();
    },
    note(row, text) {
      const mark = this.get(row);
      if (!mark || mark.note === text) return;
      all.set(head.id[row], { ...mark, note: text });
      save();
    },
    remove(row) {
      if (all.delete(head.id[row])) save();
    },
    clear() {
      all = new Map();
      save();
    },
    // The lines of videop2r_data.schemas.human_label.HumanLabel, with the words as they were seen.
    async lines() {
      const lines = [];
      for (const at of [...all.keys()].map((id) => rowOf.get(id)).filter((x) => x !== undefined).sort((a, b) => a - b)) {
        const { row } = await load(at);
        const mark = this.get(at);
        if (row.observation === null || row.observation === undefined) continue;
        lines.push(JSON.stringify({
          human_label: 1, sample_id: head.id[at], sufficient: mark.sufficient,
          problem: row.problem ?? "", options: row.options, reference: row.reference ?? "",
          observation: row.observation, reviewer: this.reviewer(), note: mark.note, dataset: head.name,
          outcome: head.outcomes[head.outcome[at]].replace("question", ""), source: head.sources[head.source[at]],
          problem_type: head.types[head.type[at]], data_type: head.kinds[head.kind[at]],
        }) + "\n");
      }
      return lines;
    },
    told() {
      handedOn = true;
    },
    // Lines of a former export, of this reviewer or another: only those of samples with the very same words.
    async take(text) {
      let taken = 0;
      let left = 0;
      for (const line of text.split("\n")) {
        if (!line.trim()) continue;
        let label = null;
        try {
          label = JSON.parse(line);
        } catch {
          label = null;
        }
        const at = label && typeof label === "object" ? rowOf.get(label.sample_id) : undefined;
        const row = at === undefined ? null : (await load(at)).row;
        if (row && typeof label.sufficient === "boolean" && row.observation === label.observation) {
          all.set(head.id[at], { sufficient: label.sufficient, note: typeof label.note === "string" ? label.note : "" });
          taken += 1;
        } else {
          left += 1;
        }
      }
      if (taken) save();
      return { taken, left };
    },
  };
})();

async function exportMarks() {
  const lines = await marks.lines();
  if (!lines.length) {
    toast("No marks yet: y or n marks the sample on the screen");
    return;
  }
  const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  const link = el("a", { href: url, download: `${head.name}-marks.jsonl` });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  marks.told();
  const left = marks.size - lines.length; // of rows that a page with a larger --limit has
  toast(`${count(lines.length, "mark")} exported${left ? `, ${number.format(left)} kept: their rows are not on this page` : ""}`);
}

function showMarks() {
  byId("marks-sum").textContent =
    `${count(marks.size, "mark")}: ${number.format(marks.sufficient)} sufficient, ` +
    `${number.format(marks.size - marks.sufficient)} not.`;
  byId("marks-kept").textContent = store.kept
    ? "Kept in this browser, for exactly this version of the data set."
    : "This browser keeps nothing for this page: export before you close it.";
  byId("marks-kept").classList.toggle("warn", !store.kept);
  byId("reviewer").value = marks.reviewer();
  byId("advance").checked = store.get("p2r-gallery:advance") === "1";
  byId("marks").showModal();
}
