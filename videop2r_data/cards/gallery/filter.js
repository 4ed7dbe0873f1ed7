// Which rows are shown, and how many each further choice would leave.
const MARKS = ["not marked", "sufficient", "not sufficient"];
const TRUTHS = ["not marked", "true", "not true"];
const PEOPLE = ["one reviewer at most", "reviewers agree", "reviewers differ"];
const JUDGES = ["judges and people agree", "a judge disagrees", "a judge is unscored", "no label"];

const facets = [
  { key: "outcome", title: "Verdict", names: head.outcomes.map(says), tells: true, of: (row) => head.outcome[row] },
  { key: "reason", title: "Reason", names: head.reasons, tells: true, of: (row) => head.reason[row] },
  { key: "type", title: "Type", names: head.types, of: (row) => head.type[row] },
  { key: "kind", title: "Media", names: head.kinds, of: (row) => head.kind[row] },
  { key: "source", title: "Source", names: head.sources, of: (row) => head.source[row] },
  { key: "mark", title: "Your marks", names: MARKS, of: (row) => books.sufficiency.state(row) },
  { key: "truth", title: "Your marks: true to the clip", names: TRUTHS, of: (row) => books.faithfulness.state(row) },
  { key: "people", title: "Between reviewers", names: PEOPLE, tells: true, of: (row) => marks.between(row) },
];
if (head.judges.length) {
  facets.push({ key: "judges", title: "Judges against people", names: JUDGES, tells: true, of: judgedState });
}
if (head.forms) facets.push({ key: "segments", title: "Segments", names: head.forms, of: (row) => head.form[row] });
if (head.trace?.rounds.length) {
  const counts = [...new Set(head.rounds)].sort((a, b) => a - b);
  facets.push({ key: "rounds", title: "Rounds", names: counts.map(String), of: (row) => counts.indexOf(head.rounds[row]) });
}
for (const tag of head.tags ?? []) facets.push({ key: `tag ${tag.title}`, title: tag.title, names: tag.names, tells: tag.tells, of: (row) => tag.of[row] });
if (head.claims) facets.push({ key: "claims", title: "Claims", names: head.claims, tells: true, of: (row) => head.claimed[row] });
for (const facet of facets) {
  facet.chosen = new Set();
  facet.counts = new Array(facet.names.length).fill(0);
}

function judgedState(row) {
  const bits = head.judged[row];
  if (!bits) return 3;
  return bits & 2 ? 1 : bits & 4 ? 2 : 0;
}

const filter = { terms: [], shown: new Int32Array(0), places: new Int32Array(size).fill(-1) };

// Where a row stands in the list, or undefined.
function placeOf(row) {
  const place = filter.places[row];
  return place >= 0 ? place : undefined;
}

// Blind review needs an order that tells nothing; the same one for everybody who looks at this data set.
const plain = Int32Array.from({ length: size }, (_, row) => row);
let mixed = null;
const ranks = { plain, mixed: null };

function sequence() {
  if (!blind) return plain;
  if (mixed) return mixed;
  mixed = plain.slice();
  let seed = parseInt(head.digest.slice(0, 8), 16) >>> 0;
  for (let i = size - 1; i > 0; i -= 1) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((seed / 2 ** 32) * (i + 1));
    [mixed[i], mixed[j]] = [mixed[j], mixed[i]];
  }
  ranks.mixed = new Int32Array(size);
  for (let i = 0; i < size; i += 1) ranks.mixed[mixed[i]] = i;
  return mixed;
}

// Where a row stands among all of them, in the order of now.
function rankOf(row) {
  sequence();
  return (blind ? ranks.mixed : ranks.plain)[row];
}

// One pass: a row that a single facet keeps out still counts among the choices of that facet.
function applyFilter() {
  const active = facets.filter((facet) => facet.chosen.size && !(blind && facet.tells));
  const shown = new Int32Array(size);
  let length = 0;
  for (const facet of facets) facet.counts.fill(0);
  for (const row of sequence()) {
    if (filter.terms.length && !matches(row, filter.terms)) continue;
    let misses = 0;
    let missed = null;
    for (const facet of active) {
      if (!facet.chosen.has(facet.of(row))) {
        misses += 1;
        missed = facet;
        if (misses > 1) break;
      }
    }
    if (misses === 0) {
      shown[length] = row;
      length += 1;
      for (const facet of facets) countIn(facet, row);
    } else if (misses === 1) {
      countIn(missed, row);
    }
  }
  filter.shown = shown.slice(0, length);
  filter.places.fill(-1);
  for (let i = 0; i < length; i += 1) filter.places[filter.shown[i]] = i;
}

function countIn(facet, row) {
  const value = facet.of(row);
  if (value >= 0) facet.counts[value] += 1;
}

const chosenCount = () => facets.reduce((sum, facet) => sum + (blind && facet.tells ? 0 : facet.chosen.size), 0);

function clearFilters() {
  for (const facet of facets) facet.chosen.clear();
  filter.terms = [];
  byId("search").value = "";
}
