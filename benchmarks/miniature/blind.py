"""What answers earn that are the same for every clip: the share of a score that needs no eyes.

python -m benchmarks.miniature.blind
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from benchmarks.miniature.settings import FULL, held_out
from videop2r_data.trainer.data import DemoStream, Example
from videop2r_data.validators import score


def constants(examples: list[Example]) -> Iterable[list[str]]:
    """Every way to answer all questions of a kind alike; a sentence keeps the name that is asked about."""
    heads = [
        " ".join(e.reference.split()[:3]) + " " if e.problem_type.value == "free-form" else ""
        for e in examples
    ]
    tails = sorted({e.reference.removeprefix(head) for e, head in zip(examples, heads, strict=True)})
    return ([head + tail for head in heads] for tail in tails)


def earned(examples: list[Example], answers: list[str]) -> tuple[float, float]:
    """(mean score, share of whole scores)."""
    values = [
        score(e.problem_type, prediction=f"<answer>{a}</answer>", reference=e.reference).value or 0.0
        for e, a in zip(examples, answers, strict=True)
    ]
    return sum(values) / len(values), sum(v == 1.0 for v in values) / len(values)


def main() -> None:
    """Best constant answers per kind, by mean score and by exact answers."""
    kinds: dict[str, list[Example]] = {}
    for example in DemoStream(held_out("process", FULL)):
        assert example.scene is not None
        kinds.setdefault(example.scene.question.kind, []).append(example)
    for kind, examples in sorted(kinds.items()):
        found = [(*earned(examples, answers), answers[0]) for answers in constants(examples)]
        for name, at in (("mean score", 0), ("exact", 1)):
            best = max(found, key=itemgetter(at))
            print(f"{kind:13} best {name:10} {100 * best[at]:.0f} %  always like: {best[2]}")


if __name__ == "__main__":
    main()
