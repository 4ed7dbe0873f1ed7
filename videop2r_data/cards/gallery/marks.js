// What reviewers say: kept in this browser under the digest of the data set, handed on as JSON Lines. A mark keeps its
// reviewer, its time and its question; marks of others stand beside one's own and are never taken for them.
// There are two questions, each with marks of its own; `marks` are those of the one that is asked now.
const ASKED = {
  sufficiency: {
    short: "Observation sufficient?", long: "Does the correct answer follow from it alone?", other: "True to the clip?",
  },
  faithfulness: {
    short: "Observation true to the clip?", long: "Does the clip show everything that it says?", other: "Sufficient?",
  },
};
const CLAIM_LABELS = ["supported", "contradicted", "unseen"];

// The labels of an exported line, to the claims of a row: number of the claim -> what was said of it.
function claimsIn(label, row) {
  const left = (Array.isArray(label.claims) ? label.claims : []).filter((one) => CLAIM_LABELS.includes(one?.verdict));
  return Object.fromEntries((row.claims ?? []).flatMap(([text], n) => {
    const at = left.findIndex((one) => one.text === text);
    return at < 0 ? [] : [[n, left.splice(at, 1)[0].verdict]];
  }));
}

function makeMarks(QUESTION) {
  const place = QUESTION === "sufficiency" ? head.digest : `${QUESTION}:${head.digest}`;
  const keys = { own: `p2r-gallery:marks:${place}`, others: `p2r-gallery:others:${place}` };
  const states = new Uint8Array(size); // 0 none, 1 sufficient, 2 not
  const betweens = new Uint8Array(size); // 0 one reviewer at most, 1 all say the same, 2 not
  const isMark = (mark) => Boolean(mark) && typeof mark.sufficient === "boolean" && typeof mark.note === "string";
  const text = (value) => (typeof value === "string" ? value : "");
  let own = readOwn();
  let others = readOthers();
  let handedOn = true;

  function read(key) {
    try {
      return Object.entries(JSON.parse(store.get(key) || "{}"));
    } catch {
      return [];
    }
  }

  function readOwn() {
    return new Map(read(keys.own).filter(([, mark]) => isMark(mark)));
  }

  function readOthers() {
    return new Map(read(keys.others).map(([id, found]) => [id, Array.isArray(found) ? found.filter(isMark) : []]));
  }

  function refresh() {
    states.fill(0);
    betweens.fill(0);
    for (const [id, mark] of own) if (rowOf.has(id)) states[rowOf.get(id)] = mark.sufficient ? 1 : 2;
    for (const [id, found] of others) {
      const said = [...(own.has(id) ? [own.get(id)] : []), ...found];
      if (rowOf.has(id) && said.length > 1) betweens[rowOf.get(id)] = said.every((mark) => mark.sufficient === said[0].sufficient) ? 1 : 2;
    }
  }

  // A browser may show a page an empty storage and the stored marks a moment later, and another tab may have added
  // some: a change is made to all of them, never to this page's alone.
  function gather() {
    for (const [id, mark] of readOwn()) {
      if (!own.has(id) || text(mark.time) > text(own.get(id).time)) own.set(id, mark);
    }
    for (const [id, found] of readOthers()) {
      const known = others.get(id) ?? [];
      const names = new Set(known.map((mark) => text(mark.reviewer)));
      others.set(id, [...known, ...found.filter((mark) => !names.has(text(mark.reviewer)))]);
    }
  }

  function save() {
    store.set(keys.own, JSON.stringify(Object.fromEntries(own)));
    store.set(keys.others, JSON.stringify(Object.fromEntries(others)));
    handedOn = false;
    refresh();
    document.dispatchEvent(new Event("marks-changed"));
  }

  // A label of a former export. One's own name makes it one's own; without names, what is not marked yet does.
  function takeOne(id, label, row) {
    const mark = {
      claims: claimsIn(label, row),
      sufficient: label.sufficient, note: text(label.note), time: text(label.time), reviewer: text(label.reviewer), question: QUESTION,
    };
    const me = reviewer();
    const mine = own.get(id);
    if (mark.reviewer === (mine?.reviewer || me) && (mark.reviewer || !mine || mine.sufficient === mark.sufficient)) {
      if (!mine || mark.time > text(mine.time)) own.set(id, mark);
      return "own";
    }
    const found = others.get(id) ?? [];
    const known = found.findIndex((other) => text(other.reviewer) === mark.reviewer);
    if (known < 0) found.push(mark);
    else if (mark.time >= text(found[known].time)) found[known] = mark;
    others.set(id, found);
    return "others";
  }

  const reviewer = () => store.get("p2r-gallery:reviewer") || "";

  refresh();
  window.addEventListener("storage", (event) => {
    if (!Object.values(keys).includes(event.key)) return; // another tab of this page marked something
    own = readOwn();
    others = readOthers();
    refresh();
    document.dispatchEvent(new Event("marks-changed"));
  });
  return {
    state: (row) => states[row],
    between: (row) => betweens[row],
    get: (row) => own.get(head.id[row]) ?? null,
    others: (row) => others.get(head.id[row]) ?? [],
    get size() {
      return own.size;
    },
    get sufficient() {
      return [...own.values()].filter((mark) => mark.sufficient).length;
    },
    get hasOthers() {
      return others.size > 0;
    },
    get otherSize() {
      return [...others.values()].reduce((sum, found) => sum + found.length, 0);
    },
    get handedOn() {
      return handedOn || own.size === 0;
    },
    reviewer,
    set(row, sufficient) {
      gather();
      own.set(head.id[row], {
        claims: this.get(row)?.claims ?? {}, sufficient, note: this.get(row)?.note ?? "", time: new Date().toISOString(), reviewer: reviewer(), question: QUESTION,
      });
      save();
    },
    // What is true of one claim; the same label again takes it back.
    claim(row, n, says) {
      gather();
      const mark = this.get(row);
      if (!mark) return;
      const claims = { ...mark.claims, [n]: mark.claims?.[n] === says ? undefined : says };
      own.set(head.id[row], { ...mark, claims, time: new Date().toISOString() });
      save();
    },
    note(row, written) {
      gather();
      const mark = this.get(row);
      if (!mark || mark.note === written) return;
      own.set(head.id[row], { ...mark, note: written, time: new Date().toISOString() });
      save();
    },
    remove(row) {
      gather();
      if (own.delete(head.id[row])) save();
    },
    clear() {
      own = new Map();
      others = new Map();
      save();
    },
    // The lines of `HumanLabel` (videop2r_data.schemas), with the words as they were seen: one's own marks and
    // those of others, each with its own reviewer.
    async lines() {
      const lines = [];
      const ids = new Set([...own.keys(), ...others.keys()]);
      for (const at of [...ids].map((id) => rowOf.get(id)).filter((x) => x !== undefined).sort((a, b) => a - b)) {
        const { row } = await load(at);
        if (row.observation === null || row.observation === undefined) continue;
        const mine = this.get(at);
        for (const mark of [...(mine ? [{ ...mine, reviewer: mine.reviewer || reviewer() }] : []), ...this.others(at)]) {
          const claims = (row.claims ?? []).map(([text], n) => ({ text, verdict: mark.claims?.[n] }));
          const labelled = claims.filter((one) => CLAIM_LABELS.includes(one.verdict));
          lines.push(JSON.stringify({
            human_label: 1, sample_id: head.id[at], sufficient: mark.sufficient,
            problem: row.problem ?? "", options: row.options, reference: row.reference ?? "",
            observation: row.observation, question: QUESTION, reviewer: text(mark.reviewer), time: text(mark.time), note: mark.note,
            dataset: head.name, outcome: head.outcomes[head.outcome[at]].replace("question", ""), source: head.sources[head.source[at]],
            problem_type: head.types[head.type[at]], data_type: head.kinds[head.kind[at]],
            ...(labelled.length ? { claims: labelled } : {}),
          }) + "\n");
        }
      }
      return lines;
    },
    told() {
      handedOn = true;
    },
    // Lines of a former export, of this reviewer or another: only those of samples with the very same words.
    async take(exported) {
      const taken = { own: 0, others: 0, left: 0 };
      gather();
      for (const line of exported.split("\n")) {
        if (!line.trim()) continue;
        let label = null;
        try {
          label = JSON.parse(line);
        } catch {
          label = null;
        }
        const at = label && typeof label === "object" ? rowOf.get(label.sample_id) : undefined;
        const row = at === undefined ? null : (await load(at)).row;
        const asked = label?.question === undefined || label.question === QUESTION;
        if (row && asked && typeof label.sufficient === "boolean" && row.observation === label.observation) {
          taken[takeOne(head.id[at], label, row)] += 1;
        } else {
          taken.left += 1;
        }
      }
      if (taken.own + taken.others) save();
      return taken;
    },
  };
}

const books = Object.fromEntries(Object.keys(ASKED).map((name) => [name, makeMarks(name)]));
const everyBook = Object.values(books);
const allMarks = () => everyBook.reduce((sum, book) => sum + book.size, 0);
let asking = store.get("p2r-gallery:question") === "faithfulness" && head.clips.length ? "faithfulness" : "sufficiency";
let marks = books[asking];

function askOther() {
  if (!head.clips.length) return;
  asking = asking === "sufficiency" ? "faithfulness" : "sufficiency";
  marks = books[asking];
  store.set("p2r-gallery:question", asking);
  toast(ASKED[asking].short);
  changed();
  draw();
}

// Why a sample cannot be marked now; "" if it can.
function cannotMark(row) {
  if (!head.markable[row]) return "No observation: nothing to mark.";
  return asking === "faithfulness" && head.clip[row] < 0 ? "No clip: nothing to hold the observation against." : "";
}

// The lines of an export, each to the marks of its own question.
async function takeMarks(exported) {
  const sum = { own: 0, others: 0, left: 0 };
  const about = (line) => {
    try {
      const named = JSON.parse(line)?.question;
      return Object.hasOwn(books, named) ? named : "sufficiency";
    } catch {
      return "sufficiency";
    }
  };
  const lines = exported.split("\n").filter((line) => line.trim());
  for (const [name, book] of Object.entries(books)) {
    const found = await book.take(lines.filter((line) => about(line) === name).join("\n"));
    for (const key of Object.keys(sum)) sum[key] += found[key];
  }
  return sum;
}

async function exportMarks() {
  const lines = (await Promise.all(everyBook.map((book) => book.lines()))).flat();
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
  for (const book of everyBook) book.told();
  const left = everyBook.reduce((sum, book) => sum + book.size + book.otherSize, 0) - lines.length; // of rows that a page with a larger --limit has
  toast(`${count(lines.length, "mark")} exported${left ? `, ${number.format(left)} kept: their rows are not on this page` : ""}`);
}

function showMarks() {
  const told = (book, yes) => {
    const others = book.otherSize ? ` ${count(book.otherSize, "mark")} of other reviewers.` : "";
    return `${count(book.size, "mark")}: ${number.format(book.sufficient)} ${yes}, ${number.format(book.size - book.sufficient)} not.${others}`;
  };
  const { sufficiency, faithfulness } = books;
  const second = faithfulness.size + faithfulness.otherSize ? [told(faithfulness, "true to the clip")] : [];
  byId("marks-sum").textContent = [told(sufficiency, "sufficient"), ...second].join(" ");
  byId("marks-kept").textContent = store.kept
    ? "Kept in this browser, for exactly this version of the data set."
    : "This browser keeps nothing for this page: export before you close it.";
  byId("marks-kept").classList.toggle("warn", !store.kept);
  byId("reviewer").value = marks.reviewer();
  byId("advance").checked = store.get("p2r-gallery:advance") === "1";
  byId("marks").showModal();
}
