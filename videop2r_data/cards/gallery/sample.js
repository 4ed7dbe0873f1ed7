// One sample: question, trace, verdicts.
const SIGN = { accepted: "yes", rejected: "no", failed: "fail", question: "ask" };
const SAYS = { true: "sufficient", false: "not sufficient", null: "unscored" };
const TRUTH = { true: "true to the clip", false: "not true to the clip", null: "unscored" };
const saysOf = (question) => (question === "faithfulness" ? TRUTH : SAYS);

function badge(at) {
  const hidden = isBlind(at);
  const outcome = hidden ? "question" : head.outcomes[head.outcome[at]];
  return el("span", { class: "badge", "data-outcome": outcome }, icon(SIGN[outcome]), hidden ? "hidden" : says(outcome));
}

function headOf(at, row) {
  const facts = [head.types[head.type[at]], head.kinds[head.kind[at]], head.sources[head.source[at]]];
  if (row.attempt > 0 && !isBlind(at)) facts.push(`try ${row.attempt + 1}`);
  if (row.synthetic) facts.push("synthetic");
  const reason = isBlind(at) || head.reason[at] < 0 ? null : words(head.reasons[head.reason[at]].split("/")[1]);
  return el("header", { class: "sample-head" }, badge(at),
    reason ? said("span", reason, { class: "why", "data-outcome": head.outcomes[head.outcome[at]] }) : null, said("h2", head.id[at]),
    el("p", { class: "facts" }, ...facts.filter(Boolean).map((fact) => said("span", fact))));
}

// The letter that an option begins with, as the answers name it.
function letterOf(option) {
  const match = /^\s*\(?([A-Za-z0-9]{1,2})\s*[.):]/.exec(option);
  return match ? match[1].toUpperCase() : null;
}

function questionOf(row) {
  const answer = answerOf(row).trim();
  const box = el("section", { class: "question" }, said("p", row.problem ?? "", { class: "ask" }));
  if (row.options.length) {
    const same = (option, text) => Boolean(text) && (letterOf(option) === text.toUpperCase() || option.trim() === text);
    box.append(el("ol", { class: "options" }, ...row.options.map((option) => {
      const right = same(option, (row.reference ?? "").trim());
      const taken = same(option, answer);
      return el("li", { class: right ? "right" : taken ? "wrong" : "" }, said("span", option),
        right ? el("em", { class: "flag right" }, icon("yes"), "correct") : null,
        taken ? el("em", { class: `flag ${right ? "right" : "wrong"}` }, "model") : null);
    })));
  }
  box.append(el("dl", { class: "answers" },
    el("dt", {}, "Correct answer"), said("dd", row.reference ?? "(none)"),
    el("dt", {}, "Model's answer"), said("dd", answer || "(none)")));
  return box;
}

const KIND_OF = { perception: "observation", reasoning: "think", answer: "answer", other: "other" };
const roleOf = (name) => (Object.hasOwn(head.trace.roles, name) ? head.trace.roles[name] : "other");

// A segment, in the colour of its role; where a recipe declares the form of its traces, with its name.
function blockOf(name) {
  if (!head.trace || !name) return el("div", { class: "segment", "data-kind": name || "outside" });
  const role = roleOf(name);
  return el("div", { class: "segment", "data-kind": KIND_OF[role], "data-name": name },
    el("em", { class: "called" }, name === role ? name : `${name} · ${role}`));
}

// The name of the segment that a mark opens; "" for a closing one.
const openedBy = ([, text, name]) => name ?? (/^<[^/]/.test(text) ? text.slice(1, -1) : "");

// Puts blocks into the trace, those of one round of a group together.
function roundsIn(box) {
  let round = null;
  let group = null;
  let last = -1;
  let turns = 0;
  return (block, name) => {
    const found = name ? head.trace?.rounds.find((one) => one.names.includes(name)) : group;
    const place = found && name ? found.names.indexOf(name) : last + 1;
    if (name && found && found.starts.includes(name) && (found !== group || !round || place <= last)) {
      turns = found === group ? turns + 1 : 1;
      group = found;
      round = el("div", { class: "round" }, el("h4", {}, `Round ${turns}`));
      box.append(round);
    } else if (!found || found !== group || place <= last) {
      round = null;
    }
    last = round ? Math.max(place, 0) : -1;
    (round ?? box).append(block);
  };
}

// The text of a segment; its typed values are marked, and a time leads to its place in the clip.
function textOf([, text, , values], player) {
  if (!values) return said("span", text, { class: "text" });
  const node = el("span", { class: "text", dir: "auto" });
  let last = 0;
  for (const [from, to, what, time, share] of values) {
    const shown = visible(text.slice(from, to));
    node.append(visible(text.slice(last, from)), time === null ? el("span", { class: "value", title: what }, shown)
      : el("button", { type: "button", class: "value", title: `${what}: go there`, on: { click: () => player.seek(time, share) } }, shown));
    last = to;
  }
  node.append(visible(text.slice(last)));
  return node;
}

// Segments as blocks with their tags; what stands outside of them is shown as such.
function traceOf(row, player) {
  const box = el("section", { class: "trace" }, el("h3", {}, "Trace"));
  const put = roundsIn(box);
  const parts = partsOf(row);
  let block = null;
  parts.forEach((part, at) => {
    const [kind, text, name = kind] = part;
    if (kind === "tag") {
      const opened = openedBy(part);
      if (opened || !block) put((block = blockOf(opened)), opened);
      block.append(el("code", { class: "tag" }, visible(text)));
      if (!opened) block = null;
    } else if (kind === "outside") {
      if (text.trim()) put(said("div", text.trim(), { class: "segment", "data-kind": "outside" }), "");
    } else if (block) {
      block.append(textOf(part, player));
    } else {
      const own = blockOf(name); // free text; or its opening mark stands in the prompt
      put(own, name);
      own.append(textOf(part, player));
      const next = parts[at + 1];
      if (next?.[0] === "tag" && !openedBy(next)) block = own;
      else own.dataset.free = "";
    }
  });
  if (!box.querySelector(".segment")) box.append(el("p", { class: "note" }, "No trace: the row fell before a model was asked, or it is a question only."));
  return box;
}

function verdictOf(at, row, player) {
  const box = el("section", { class: "verdict" }, el("h3", {}, "Verdicts"));
  if (isBlind(at)) {
    box.append(el("p", { class: "note" }, "Blind: shown when you have marked this sample."));
    return box;
  }
  const outcome = head.outcomes[head.outcome[at]];
  if (head.reason[at] >= 0) {
    const [stage, reason] = head.reasons[head.reason[at]].split("/");
    box.append(el("p", { class: "reason", "data-outcome": outcome }, icon(SIGN[outcome]),
      el("strong", {}, words(reason)), ` ${says(outcome)} at step ${stage}`));
  }
  if (row.detail && row.detail !== row.why) box.append(said("p", row.detail, { class: "detail" }));
  const reward = head.reward[at];
  if (reward !== null) {
    const fill = el("i");
    fill.style.width = `${reward * 100}%`;
    box.append(el("div", { class: "scoring" }, el("span", {}, "Answer's score"),
      el("span", { class: "meter", role: "img", "aria-label": `score ${reward.toFixed(2)}` }, fill), el("b", {}, reward.toFixed(2))));
  }
  if (row.judgement || row.why) {
    const good = row.judgement === "Yes";
    box.append(el("div", { class: "judge" },
      el("p", {}, "Judge: observation sufficient? ", el("b", { class: good ? "yes" : "no" }, row.judgement || "not asked")),
      row.why ? said("blockquote", row.why) : null));
  }
  if (row.claims) box.append(claimsOf(at, row.claims, player));
  if (row.verdicts) box.append(judgesOf(row.verdicts));
  return box;
}

// What a model that sees the clip said of each claim of the observation; a time leads to the frame it relied on.
const CLAIMED = { supported: ["yes", "supported"], contradicted: ["no", "contradicted"], unseen: ["eye", "cannot be seen"], "": ["ask", "no verdict"] };
// Under the second question each claim can be labelled; in a blind review that comes before the model's verdict.
function claimsOf(at, claims, player) {
  const mark = asking === "faithfulness" && !cannotMark(at) ? marks.get(at) : null;
  const lines = claims.map(([text, verdict, times], n) => {
    const mine = mark?.claims?.[n];
    const hidden = blind && mark && !mine;
    const [sign, told] = hidden ? ["ask", "label it first"] : CLAIMED[verdict];
    const button = (says) => el("button", { type: "button", id: `claim-${at}-${n}-${says}`, "aria-pressed": mine === says,
      on: { click: () => marks.claim(at, n, says) } }, CLAIMED[says][1]);
    return el("li", { "data-verdict": (!hidden && verdict) || "none" }, icon(sign), said("span", text, { class: "what" }), el("small", {}, told),
      mark ? el("span", { class: "labels", role: "group", "aria-label": "You say" }, ...CLAIM_LABELS.map(button)) : null,
      ...(hidden ? [] : times).map((time) => el("button", { type: "button", class: "value", title: "go there", on: { click: () => player.seek(time, 0) } }, seconds(time))));
  });
  const how = asking === "faithfulness" && !mark && !cannotMark(at) ? el("p", { class: "note" }, "Mark the observation first, then each claim.") : null;
  const box = el("div", { class: "claims" }, el("h4", {}, "Claims of the observation, held against the clip"), el("ul", {}, ...lines), how);
  box.again = () => claimsOf(at, claims, player);
  return box;
}

// After a mark: the clip plays on, and the keyboard stays where it was.
function drawClaims() {
  const held = document.activeElement?.id;
  for (const box of document.querySelectorAll(".claims")) box.replaceWith(box.again());
  if (held) byId(held)?.focus();
}

function judgesOf(found) {
  const says = saysOf(found.question);
  const lines = found.judges.map((judge) => {
    const differs = judge.sufficient !== null && judge.sufficient !== found.sufficient;
    return el("li", { class: differs ? "differs" : "" },
      el("p", {}, el("span", {}, said("b", judge.judge), ": "), el("span", { class: `say ${judge.sufficient}` }, says[judge.sufficient]),
        differs ? el("em", { class: "flag wrong" }, "disagrees") : null,
        judge.seconds === null ? null : el("small", {}, seconds(judge.seconds))),
      judge.why ? said("blockquote", judge.why) : null);
  });
  const person = el("li", { class: "person" },
    el("p", {}, el("span", {}, said("b", found.reviewer || "person"), ": "), el("span", { class: `say ${found.sufficient}` }, says[found.sufficient])),
    found.note ? said("blockquote", found.note) : null);
  return el("div", { class: "judges" }, el("h4", {}, "Judges against people"), el("ul", {}, person, ...lines));
}

function originOf(at, row) {
  const clip = head.clip[at];
  const facts = {
    sample_id: head.id[at], path: clip >= 0 ? head.clips[clip][1] : "", "sha256 of the file": row.sha256,
    "frames per second": row.fps ? row.fps.toFixed(3) : "", "generating call": row.generation, "judging call": isBlind(at) ? "" : row.judging,
  };
  const list = Object.entries(facts).filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), said("dd", value)]);
  return el("details", { class: "origin" }, el("summary", {}, "Where it comes from"), el("dl", {}, ...list));
}

function markBar(at, row) {
  const other = head.clips.length ? el("button", { type: "button", class: "quiet", title: "The other question (q)", on: { click: () => askOther() } }, ASKED[asking].other) : null;
  const cannot = cannotMark(at);
  if (cannot) return el("footer", { class: "markbar" }, el("p", { class: "note" }, cannot), other);
  const mark = marks.get(at);
  const button = (sufficient, key, label) => el("button", {
    type: "button", class: `mark-${sufficient ? "yes" : "no"}`, "aria-pressed": mark ? mark.sufficient === sufficient : false,
    on: { click: () => markSample(sufficient) },
  }, icon(sufficient ? "yes" : "no"), label, el("kbd", {}, key));
  const note = el("input", { type: "text", id: "note", placeholder: mark ? "Note (m)" : "Mark first, then note", maxlength: 2000,
    "aria-label": "Note", disabled: !mark, autocomplete: "off" });
  note.value = mark?.note ?? "";
  note.addEventListener("input", () => marks.note(at, note.value));
  return el("footer", { class: "markbar" },
    el("p", { class: "asking" }, el("b", {}, ASKED[asking].short), el("small", {}, ASKED[asking].long)),
    el("div", { class: "pairing" }, button(true, "y", "Yes"), button(false, "n", "No")), note,
    mark ? el("button", { type: "button", class: "quiet", on: { click: () => unmark() } }, "Clear") : null, othersOf(at), other);
}

// What other reviewers said, as their exports have it; not before one's own mark in a blind review.
function othersOf(at) {
  const others = isBlind(at) ? [] : marks.others(at);
  if (!others.length) return null;
  return el("ul", { class: "others", "aria-label": "Other reviewers" }, ...others.map((mark) => el("li", { title: visible(mark.note) },
    said("b", mark.reviewer || "(no name)"), ": ", el("span", { class: `say ${mark.sufficient}` }, saysOf(asking)[mark.sufficient]))));
}
