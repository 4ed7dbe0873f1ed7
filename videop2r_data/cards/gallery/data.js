// The rows: a head of columns is parsed at once, the rest in chunks when it is looked at.
const head = JSON.parse(byId("head").textContent);
const size = head.id.length;
// Other pages than those of a data set have words of their own for what became of a row.
const says = (outcome) => head.says?.[outcome] ?? outcome;
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const rowOf = new Map(head.id.map((id, at) => [id, at]));
const chunks = Math.ceil(size / head.chunk);
const KEEP = 12; // parsed chunks at most

const parsed = new Map();

// The document may still be arriving: a chunk is whole once something stands behind it.
function chunkText(at) {
  const node = byId(`rows-${at}`);
  const whole = node && (node.nextElementSibling || document.readyState !== "loading");
  return whole ? node.textContent : null;
}

function readChunk(at) {
  const text = chunkText(at);
  if (text === null) return null;
  const data = JSON.parse(text);
  data.rows.forEach((row, i) => {
    row.options ??= [];
    row.observation ??= row.trace ? row.trace[0] : null;
    row.at = at * head.chunk + i;
  });
  return data;
}

function chunkOf(at) {
  const found = parsed.get(at) ?? readChunk(at);
  if (found) {
    parsed.delete(at); // to the end: the ones looked at last stay
    parsed.set(at, found);
    if (parsed.size > KEEP) parsed.delete(parsed.keys().next().value);
  }
  return found;
}

async function load(row) {
  const at = Math.floor(row / head.chunk);
  for (;;) {
    const data = chunkOf(at);
    if (data) {
      const clip = head.clip[row];
      return { row: data.rows[row % head.chunk], sheet: (data.sheets && data.sheets[clip]) || null };
    }
    await new Promise((done) => setTimeout(done, 20));
  }
}

function partsOf(row) {
  if (row.parts) return row.parts;
  if (!row.trace) return [];
  const [observation, think, answer] = row.trace;
  return [
    ["tag", "<observation>"], ["observation", observation], ["tag", "</observation>"], ["outside", " "],
    ["tag", "<think>"], ["think", think], ["tag", "</think>"],
    ["tag", "<answer>"], ["answer", answer], ["tag", "</answer>"],
  ];
}

const segmentOf = (row, kind) => (partsOf(row).find(([k]) => k === kind) || ["", ""])[1];
const answerOf = (row) => row.answer ?? segmentOf(row, "answer");

function addressOf(clip) {
  const [source, , address] = head.clips[clip];
  const base = head.bases[source];
  return address && base !== undefined ? base + address : null;
}

// Search: one lower-case text for each row, made when the browser is idle, or at the first search; apart from it
// what step and judges said, which a blind review may not find.
const haystacks = new Array(size).fill(null);
const verdictTexts = new Array(size).fill("");
let haystacksMade = 0;

function makeHaystacks(at) {
  if (haystacks[at * head.chunk] !== null) return true;
  const data = parsed.get(at) ?? readChunk(at);
  if (!data) return false;
  for (const row of data.rows) {
    const judges = row.verdicts ? [row.verdicts.note, ...row.verdicts.judges.map((j) => j.why)] : [];
    haystacks[row.at] = [
      head.id[row.at], row.problem, ...row.options, row.reference, partsOf(row).map((p) => p[1]).join(""),
      head.clip[row.at] >= 0 ? head.clips[head.clip[row.at]][1] : "",
    ].filter(Boolean).join("\n").toLowerCase();
    verdictTexts[row.at] = [row.detail, row.why, ...judges, ...(row.claims ?? []).map(([text]) => text)].filter(Boolean).join("\n").toLowerCase();
  }
  haystacksMade += 1;
  return true;
}

const searchReady = () => haystacksMade === chunks;

function warmSearch() {
  const later = window.requestIdleCallback || ((act) => setTimeout(() => act({ timeRemaining: () => 8 }), 30));
  let at = 0;
  const step = (deadline) => {
    while (at < chunks && deadline.timeRemaining() > 2) {
      if (!makeHaystacks(at)) break;
      at += 1;
    }
    if (at < chunks) later(step);
    else document.dispatchEvent(new Event("search-ready"));
  };
  later(step);
}

// Words must all be there; "a phrase" in quotes stands as it is.
function termsOf(query) {
  const terms = [];
  for (const match of query.toLowerCase().matchAll(/"([^"]+)"|(\S+)/g)) terms.push(match[1] ?? match[2]);
  return terms;
}

function matches(row, terms) {
  const text = haystacks[row];
  const told = blind ? "" : verdictTexts[row];
  return text !== null && terms.every((term) => text.includes(term) || told.includes(term));
}
