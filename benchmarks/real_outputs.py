"""What the profile `robust` and the consistency rule decide on real model outputs, and what a change changes.

    python benchmarks/real_outputs.py SAMPLES [--changed OTHER_CHECKOUT] [--write]

SAMPLES is the folder of samples. Per file of outputs: the answer against the reference; the last sentence
before the answer, read as if it were the answer, against the answer that was given; and whether what was
thought settles on that answer. Per file of questions: right and wrong options in the dress of an answer
(`FORMS`): a wrong one that is accepted is a false accept.

`--changed` decides with the package of another checkout as well, shows both and lists every decision that
differs. `--write` puts the tables into benchmarks/results/real_outputs.md, between its marks.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from benchmarks._real_rows import Output, Question

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "real_outputs.md"
_BEGIN, _END = "<!-- tables -->", "<!-- end of tables -->"
_LABEL = re.compile(r"\s*\(?([A-Z]|\d)[.):]\s*")
_STOP = re.compile(r"(?<=[.!?。！？])\s+|\n\s*\n")
FORMS = {
    "letter": "{letter}",
    "letter and text": "{letter}. {text}",
    "text": "{text}",
    "phrase": "The correct answer is ({letter}) {text}",
    "sentence, letter": "Based on the video, the answer is {letter}.",
    "sentence, reason": "The answer is {letter} because the video shows it.",
    "sentence, text": "Based on the video, the answer is {text}",
    "boxed": "\\(\\boxed{{\\text{{{letter}}}}}\\)",
    "negated": "The answer is not {letter}.",
    "in doubt": "The answer might be {letter}.",
    "conditional": "If the video were longer, the answer would be {letter}.",
}
_ALPHABET = "ABCDEFGHIJ"
_NEVER = {"negated", "in doubt", "conditional", "all options", "two options"}


class Decision(NamedTuple):
    """One decision: where, about what, what was decided, and the words to read by eye."""

    file: str
    row: str
    about: str
    said: str
    words: str


def decide(samples: Path) -> list[Decision]:
    """Every decision, with the package that is importable now."""
    from benchmarks._real_rows import read_outputs, read_questions

    found: list[Decision] = []
    for output in read_outputs(samples):
        found += _on_answer(output)
        if output.thought and output.answer:
            found += _on_last_sentence(output)
            found += _on_thought(output)
    for question in read_questions(samples):
        found += _on_options(question)
    return found


def _on_answer(one: Output) -> list[Decision]:
    from videop2r_data.validators import score

    if one.reference is None:
        return []
    result = score(one.kind, prediction=one.text, reference=one.reference, options=one.options)
    words = f"{one.text[-160:]!r} for {one.reference!r}"
    return [Decision(one.file, str(one.row), "answer", _said(result.value, result.reason.value), words)]


def _on_last_sentence(one: Output) -> list[Decision]:
    from videop2r_data.validators import score

    if one.reference is None:
        return []
    sentence = next((s for s in reversed(_STOP.split(one.thought)) if s.strip()), "")
    result = score(one.kind, prediction=sentence, reference=one.answer, options=one.options)
    said = {1.0: "agrees", None: "answer names nothing"}.get(result.value, "unread")
    if result.value == 0 and result.reason.value in ("mismatch", "unit_mismatch"):
        said = "differs"
    words = f"{sentence[-240:]!r}, answer {one.answer[:60]!r}"
    return [Decision(one.file, str(one.row), "last sentence", said, words)]


def _on_thought(one: Output) -> list[Decision]:
    from videop2r_data.schemas import ProcessTrace
    from videop2r_data.validators import check_consistency, score, think_choice, think_number

    if one.kind not in ("multiple choice", "numerical", "regression"):
        return []
    trace = ProcessTrace.model_construct(observation="-", think=one.thought, answer=one.answer)
    agrees = check_consistency(trace, one.kind, one.options).reason is None
    chosen = think_choice(one.thought, one.options) if one.kind == "multiple choice" else None
    if chosen:
        same = score(one.kind, prediction=one.answer, reference=chosen, options=one.options).value
        decided = same == 1 or not agrees  # an answer that names nothing is compared with nothing
    else:
        decided = one.kind != "multiple choice" and think_number(one.thought) is not None
    said = ("agrees" if agrees else "differs") if decided else "undecided"
    words = f"{chosen or ''} {one.thought[-240:]!r}, answer {one.answer[:60]!r}"
    return [Decision(one.file, str(one.row), "think", said, words)]


def _said(value: float | None, reason: str) -> str:
    if value is None:
        return "unscorable"
    return "accept" if value >= 0.6 else f"refuse ({reason})"


def _on_options(question: Question) -> list[Decision]:
    from videop2r_data.validators import score

    found = []
    for form, text, right in _tries(question):
        result = score(
            "multiple choice", prediction=text, reference=question.reference, options=question.options
        )
        said = f"{'right' if right else 'wrong'}: {_said(result.value, '').replace(' ()', '')}"
        words = f"{text[:160]!r} for {question.reference!r} of {question.options[:6]}"
        row = f"{question.row}/{text[:400]}/{question.options}"
        found.append(Decision(question.file, row, form, said, words))
    return found


def _tries(question: Question) -> Iterator[tuple[str, str, bool]]:
    """Right and wrong options in every form: (form, answer, whether it is right)."""
    marked = [_LABEL.match(option) for option in question.options]
    rises = [m.group(1) for m in marked if m] == list(_ALPHABET)[: len(marked)]
    bare = [_LABEL.sub("", option, count=1) if rises else option for option in question.options]
    lettered = list(zip(_ALPHABET, bare, strict=False))
    yield "all options", " ".join(f"{letter}. {text}" for letter, text in lettered), False
    yield "two options", "A or B", False
    right = [
        i
        for i, option in enumerate(question.options)
        if _names(question.reference, _ALPHABET[i], option, bare[i])
    ]
    if len(right) > 1:
        named = [_ALPHABET[i] for i in right]
        yield "several", f"{', '.join(reversed(named[:-1]))} and {named[-1]}", True
        yield "several", named[0], False
    for form, pattern in FORMS.items() if len(right) == 1 else ():
        for letter, text in lettered:
            if text in _ALPHABET and "text" in form:
                continue  # a text that is another option's letter: nobody can tell
            same = text == bare[right[0]] and form not in _NEVER
            yield form, pattern.format(letter=letter, text=text), same


def _names(reference: str, label: str, option: str, text: str) -> bool:
    letters = [part.strip(" ()") for part in reference.split(",")]
    if all(len(letter) == 1 and letter.isupper() for letter in letters):
        return label in letters
    return reference in (option, text)


_TITLES = {
    "answer": "The answer against the reference",
    "last sentence": "The last sentence before the answer, read as an answer, against the answer given",
    "think": "What the thinking settles on, against the answer given",
}
_DRESSED = "Options of real questions in the dress of an answer"


def tables(now: list[Decision], before: list[Decision] | None) -> str:
    """Counts per file (for options: per form), before and after where both are known."""
    lines: list[str] = []
    for about, title in (*_TITLES.items(), ("", _DRESSED)):
        counts = [_counts(decisions, about) for decisions in (before, now) if decisions is not None]
        names = ["now"] if before is None else ["before", "now"]
        lines += ["", f"### {title}", ""]
        lines.append(f"| {'file' if about else 'form'} | decision | {' | '.join(names)} |")
        lines.append("|---|---|" + "---|" * len(names))
        for row in sorted(set().union(*counts)):
            lines.append(f"| {' | '.join(row)} | " + " | ".join(str(count[row]) for count in counts) + " |")
    return "\n".join(lines).strip()


def _counts(decisions: list[Decision], about: str) -> Counter[tuple[str, str]]:
    if about:
        return Counter((d.file, d.said) for d in decisions if d.about == about)
    return Counter((d.about, d.said) for d in decisions if d.about not in _TITLES)


def differing(now: list[Decision], before: list[Decision]) -> list[str]:
    """Every decision that is another one now, with the words to read by eye."""
    old = {(d.file, d.row, d.about): d.said for d in before}
    lines = []
    for d in now:
        was = old.get((d.file, d.row, d.about), "-")
        if was != d.said:
            row = d.row.partition("/")[0]
            lines.append(f"{d.about} | {d.file} {row} | {was} -> {d.said} | {d.words}")
    return lines


def _of_other(checkout: Path, samples: Path) -> list[Decision]:
    command = [sys.executable, __file__, str(samples), "--dump", "--checkout", str(checkout)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=checkout).stdout
    return [Decision(*json.loads(line)) for line in out.splitlines()]


def main() -> None:
    """Score real outputs against their references and print every decision table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("--changed", type=Path, metavar="OTHER_CHECKOUT")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--checkout", type=Path, default=ROOT, help=argparse.SUPPRESS)
    parser.add_argument("--dump", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    sys.path.insert(0, str(args.checkout.resolve()))
    import benchmarks

    benchmarks.__path__[:] = [str(ROOT / "benchmarks")]  # the rows of this checkout, the package of the other
    now = decide(args.samples)
    if args.dump:
        sys.stdout.writelines(json.dumps(decision) + "\n" for decision in now)
        return
    before = _of_other(args.changed, args.samples) if args.changed else None
    text = tables(now, before)
    print(text)
    if before is not None:
        print("\n".join(["", "Changed:", *differing(now, before)]))
    if args.write:
        head, _, rest = RESULTS.read_text(encoding="utf-8").partition(_BEGIN)
        RESULTS.write_text(f"{head}{_BEGIN}\n{text}\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
