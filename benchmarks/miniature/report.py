"""Write the page: prose of `page.md`, tables and curves from `results/`.

python -m benchmarks.miniature report --cells runs/miniature     # gathers the cells first
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import record
from benchmarks.miniature.gather import (
    READ,
    Cell,
    Record,
    by_seed,
    equal_kl,
    gather,
    over_seeds,
    paired,
    records,
    turn,
)
from benchmarks.miniature.settings import (
    ERRORS,
    FIRST,
    FULL,
    JUDGED,
    JUDGES,
    MAIN,
    RL_RATE,
    SAME,
    SETTINGS,
    arms,
)

HERE = Path(__file__).parent
PAGE = HERE.parent / "results" / "miniature.md"
REFERENCE = "pa-grpo"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def runs(found: Sequence[Record], setting: str, arm: str, purpose: str = "main") -> dict[int, Record]:
    """Seed -> a run, or the start where the arm is one."""
    if not arms()[arm].objective:
        purpose = "start"
    wanted: Record = {"setting": setting, "arm": arm, "purpose": purpose}
    if purpose == "main":
        wanted["rate"] = rate_of(found, setting, arm).rate
    named = by_seed(found, **wanted)
    if arm == "sft":
        going_on = sorted(seed for seed, one in named.items() if one["holds"] and seed < 1000)
        return {seed: named[seed] for seed in going_on[: FULL.seeds]}
    return named


def reference_at(found: Sequence[Record], setting: str, rate: float) -> dict[int, Record]:
    """PA-GRPO at the learning rate of another arm."""
    if rate == rate_of(found, setting, REFERENCE).rate:
        return runs(found, setting, REFERENCE)
    return by_seed(found, setting=setting, arm=REFERENCE, purpose="rates", rate=rate)


class Rate(NamedTuple):
    """A learning rate; `chosen`: on validation clips, all tuning runs being there."""

    rate: float
    chosen: bool

    @property
    def text(self) -> str:
        """For a table."""
        return f"{self.rate:g}{'' if self.chosen else ' (not chosen)'}"


def rate_of(found: Sequence[Record], setting: str, arm: str) -> Rate:
    """The chosen rate, or while runs are missing the one that was taken in its place."""
    tuning = [
        one for one in found if one["purpose"] == "tune" and (one["setting"], one["arm"]) == (setting, arm)
    ]
    if len(tuning) >= len(FULL.rates) * len(FULL.tuning):
        means = {
            rate: [x["validation"]["sampled"] for x in tuning if x["rate"] == rate] for rate in FULL.rates
        }
        return Rate(max(means, key=lambda rate: sum(means[rate]) / len(means[rate])), True)
    return Rate(RL_RATE, False)


def share(mode: str, key: str) -> Callable[[Record], float | None]:
    """In percent; None where the arm has none."""

    def value(record: Record) -> float | None:
        number = record["test"][mode].get(key)
        return None if number is None else 100 * number

    return value


def cell(found: dict[int, Record], mode: str, key: str, scale: float = 100.0) -> str:
    """Mean over seeds, with its interval."""
    values = [record["test"][mode].get(key) for record in found.values()]
    return _text(over_seeds(scale * value for value in values if value is not None), 2 if scale == 1.0 else 1)


def _text(value: Cell, digits: int = 1, *, signed: bool = False) -> str:
    return value.text(signed=signed, digits=digits) if value.n else "-"


def gates(found: Sequence[Record], setting: str) -> str:
    """Every check of the gate: mean and range over the seeds that were tried, and how many passed."""
    starts = [
        one for one in by_seed(found, setting=setting, arm="sft", purpose="start").values() if "gate" in one
    ]
    if not starts:
        return "Not run yet."
    rows = []
    for number, check in enumerate(starts[0]["gate"]):
        values = [one["gate"][number]["value"] for one in starts]
        low, high = check["low"], check["high"]
        limit = f"at least {low:g}" if high >= 100 else f"{low:g} to {high:g}"
        held = sum(one["gate"][number]["holds"] for one in starts)
        span = f"{min(values):.1f} to {max(values):.1f}"
        rows.append(
            [check["says"], limit, f"{sum(values) / len(values):.1f}", span, f"{held} of {len(starts)}"]
        )
    own = [100 * (1 - one["test"]["sampled"]["reasoning"]) for one in starts]
    rows.append(["reasoning against its own observation", "(no limit)", _text(over_seeds(own)), "", ""])
    passed = [str(one["seed"]) for one in starts if one["holds"]]
    failed = [str(one["seed"]) for one in starts if not one["holds"]]
    ends = f"It holds for seeds {', '.join(passed) or 'none'}, and stops seeds {', '.join(failed) or 'none'}."
    return f"{table(['check', 'wanted', 'mean', 'range', 'holds'], rows)}\n\n{ends}"


def main_table(found: Sequence[Record], setting: str) -> str:
    """Every arm on the test clips."""
    rows = []
    for name in arms():
        own = runs(found, setting, name)
        if not own:
            continue
        rate = rate_of(found, setting, name) if arms()[name].objective else None
        rows.append([
            name, str(len(own)), "-" if rate is None else rate.text,
            *(cell(own, "sampled", key) for key in ("answers", "observations", "invented", "reasoning")),
            *(cell(own, "greedy", key) for key in ("answers", "observations")),
            cell(own, "sampled", "kl", 1.0),
        ])  # fmt: skip
    head = [
        "arm", "seeds", "rate", "answers", "observations right", "invented", "reasoning follows",
        "greedy answers", "greedy observations", "KL, nats",
    ]  # fmt: skip
    return table(head, rows) if rows else "Not run yet."


def pairs(found: Sequence[Record], setting: str) -> str:
    """PA-GRPO minus every other arm: at equal updates, and within the same KL at the other's rate."""
    reference, rows = runs(found, setting, REFERENCE), []
    for name in arms():
        own = runs(found, setting, name)
        if name == REFERENCE or not set(own) & set(reference):
            continue
        columns = [("sampled", "answers"), ("greedy", "answers"), ("sampled", "observations")]
        differences = [paired(reference, own, share(*column)) for column in columns]
        texts = [_text(one, signed=True) for one in differences]
        equal = ["-"] * 4
        if all("curve" in one for one in own.values()):
            level = reference_at(found, setting, rate_of(found, setting, name).rate)
            at, same = equal_kl(level, own), paired(level, own, share("sampled", "answers"))
            equal = [_text(same, signed=True), _text(at.level, 2)]
            equal += [_text(one, signed=True) for one in (at.answers, at.observations)]
        rows.append([name, str(differences[0].n), *texts, *equal])
    head = [
        f"{REFERENCE} minus", "seeds", "answers", "greedy answers", "observations right",
        "answers, both at its rate", "within a KL of", "answers there", "observations there",
    ]  # fmt: skip
    return table(head, rows) if rows else "Not run yet."


def rates(found: Sequence[Record], setting: str) -> str:
    """Sampled answers on validation clips by learning rate: mean over the tuning seeds."""
    rows = []
    for name in arms():
        row = []
        for rate in FULL.rates:
            own = by_seed(found, setting=setting, arm=name, purpose="tune", rate=rate)
            values = [100 * one["validation"]["sampled"] for one in own.values()]
            row.append(f"{sum(values) / len(values):.1f} ({len(values)})" if values else "-")
        if set(row) != {"-"}:
            rows.append([name, *row])
    return table(["arm", *(f"{rate:g}" for rate in FULL.rates)], rows) if rows else "Not run yet."


def judged(found: Sequence[Record]) -> list[tuple[str, str, dict[int, Record]]]:
    """Judge, error, runs: start, GRPO, and PA-GRPO under every judge."""
    starts = {
        seed: one
        for seed, one in by_seed(found, setting=JUDGED, arm="sft", purpose="start").items()
        if seed < 1000
    }
    listed = [
        ("SFT", "", starts),
        ("GRPO, no judge", "", by_seed(found, setting=JUDGED, arm="grpo", purpose="judges")),
    ]
    for judge in JUDGES:
        for error in ERRORS:
            wanted = {
                "setting": JUDGED,
                "arm": REFERENCE,
                "purpose": "judges",
                "judge": judge,
                "error": error,
            }
            listed.append((judge, f"{100 * error:g}", by_seed(found, **wanted)))
    return [one for one in listed if one[2]]


def judge_table(found: Sequence[Record]) -> str:
    """What becomes of the observations under each judge."""
    rows = []
    for judge, error, own in judged(found):
        keys = ("answers", "observations", "invented", "likely", "empty_likely", "unlikely")
        rows.append([judge, error, str(len(own)), *(cell(own, "sampled", key) for key in keys)])
    head = [
        "judge", "errors, %", "seeds", "answers", "observations right", "invented",
        "observation supports the likely answer", "the same, black frames",
        "answers where the likely one is wrong",
    ]  # fmt: skip
    return table(head, rows) if rows else "Not run yet."


_ALARMS = ("empty", "shuffled", "usual", "seen")


def alarm_table(found: Sequence[Record], purpose: str = "judges") -> str:
    """When a run turns to inventing, when each alarm comes up, and what the judge is asked."""
    rows = []
    for judge, error, own in judged(found) if purpose == "judges" else _long_judged(found):
        with_alarms = [one for one in own.values() if "training" in one]
        if not with_alarms:
            continue
        turned = [step for one in with_alarms if (step := turn(one)) is not None]
        row = [judge, error, _steps(turned, len(with_alarms))]
        for name in _ALARMS:
            first = [one["alarms"][name][0] for one in with_alarms if name in one.get("alarms", {})]
            row.append(_steps(first, len(with_alarms)))
        updates = with_alarms[0]["updates"]
        calls = [
            sum(one["calls"][kind] for one in with_alarms) / len(with_alarms) / updates
            for kind in ("text", "clip")
        ]
        rows.append([*row, *(f"{count:.0f}" for count in calls)])
    head = [
        "judge", "errors, %", "turns to inventing at", *(f"`{name}` first up" for name in _ALARMS),
        "text calls an update", "calls with the clip",
    ]  # fmt: skip
    return table(head, rows) if rows else "Not run yet."


def alarm_values(found: Sequence[Record]) -> str:
    """What the alarms read at the first update and at the end, the mean over seeds of each."""
    rows = []
    for judge, error, own in judged(found):
        read = [one for one in own.values() if "read_first" in one]
        if read:
            rows.append([judge, error, str(len(read)), *(_from_to(read, key) for key in READ)])
    names = (f"`{key}`" for key in READ)
    return table(["judge", "errors, %", "seeds", *names], rows) if rows else "Not run yet."


def _from_to(read: Sequence[Record], key: str) -> str:
    """`first → last`, in percent; a reading can lack what there was nothing of."""
    means = []
    for when in ("read_first", "read"):
        known = [100 * one[when][key] for one in read if one[when][key] is not None]
        means.append(f"{sum(known) / len(known):.0f}" if known else "-")
    return " → ".join(means)


def _long_judged(found: Sequence[Record]) -> list[tuple[str, str, dict[int, Record]]]:
    listed = [
        (judge, "0", by_seed(found, setting=JUDGED, arm=REFERENCE, purpose="long", judge=judge))
        for judge in JUDGES
    ]
    return [one for one in listed if one[2]]


def _steps(steps: Sequence[int], runs_: int) -> str:
    """Median and range of updates, and in how many runs it happened."""
    if not steps:
        return f"never (0 of {runs_})"
    ordered = sorted(steps)
    middle = ordered[len(ordered) // 2]
    span = f"{middle}" if ordered[0] == ordered[-1] else f"{middle} [{ordered[0]}, {ordered[-1]}]"
    return f"{span} ({len(steps)} of {runs_})"


def long_table(found: Sequence[Record]) -> str:
    """The long runs of the main pairs, and where they stood on the way."""
    rows = []
    for name in FIRST:
        for seed, one in sorted(by_seed(found, setting=MAIN[0], arm=name, purpose="long").items()):
            curve = one["curve"]
            points = [
                f"{100 * a:.1f} / {100 * g:.1f}"
                for a, g in zip(curve["answers"], curve["greedy"], strict=True)
            ]
            steps = curve["step"]
            rows.append([name, str(seed), *(points[k] for k in (1, 2, 4, 6, 8, 10))])
    if not rows:
        return "Not run yet."
    return table(
        ["arm, sampled / greedy answers", "seed", *(f"{steps[k]}" for k in (1, 2, 4, 6, 8, 10))], rows
    )


def long_judges(found: Sequence[Record]) -> str:
    """The long runs under judges."""
    rows = [
        [
            judge,
            str(len(own)),
            *(cell(own, "sampled", key) for key in ("answers", "observations", "invented")),
        ]
        for judge, _, own in _long_judged(found)
    ]
    if not rows:
        return "Not run yet."
    return table(["judge", "seeds", "answers", "observations right", "invented"], rows)


def still_open(found: Sequence[Record]) -> str:
    """What was planned and is not there, with the command that fills it."""
    lines = []
    for setting in (*MAIN, "G"):
        for name in arms():
            if setting == "G" and name not in ("sft", *FIRST):
                continue
            if name in FIRST and not rate_of(found, setting, name).chosen:
                phase = "glimpses" if setting == "G" else "main"
                lines.append((phase, f"{setting} {name}: its learning rate is not chosen"))
            n = len(runs(found, setting, name))
            if n < FULL.seeds:
                phase = "glimpses" if setting == "G" else "main" if name in ("sft", *FIRST) else "rest"
                lines.append((phase, f"{setting} {name}: {n} of {FULL.seeds} seeds"))
        for rate in FULL.rates if setting != "G" else ():
            if len(reference_at(found, setting, rate)) < FULL.seeds:
                lines.append(("rates", f"{setting} {REFERENCE} at {rate:g}"))
    wanted = 1 + len(JUDGES) * len(ERRORS) - 1
    done = sum(len(own) for judge, _, own in judged(found) if judge != "SFT")
    if done < wanted * FULL.judge_seeds:
        lines.append(("judges", f"{JUDGED}: {done} of {wanted * FULL.judge_seeds} runs"))
    n = sum(1 for one in found if one["purpose"] == "long")
    planned = len(FIRST) * FULL.long_seeds + 3
    if n < planned:
        lines.append(("long", f"{n} of {planned} runs"))
    if not lines:
        return "Nothing: all cells are there."
    phases: dict[str, list[str]] = {}
    for phase, text in lines:
        phases.setdefault(phase, []).append(text)
    return "\n".join(
        f"- `python -m benchmarks.miniature run --phases {phase}`: {'; '.join(texts)}"
        for phase, texts in phases.items()
    )


def cost(found: Sequence[Record]) -> str:
    """CPU seconds of a start and of 100 updates."""
    rows = []
    for setting in SETTINGS:
        starts = [
            one["cpu_s"]
            for one in found
            if one["setting"] == setting and one["arm"] == "sft" and "cpu_s" in one
        ]
        trained = [
            100 * one["cpu_s"] / one["updates"]
            for one in found
            if one["setting"] == setting and one["updates"]
        ]
        if starts and trained:
            rows.append([setting, f"{sum(starts) / len(starts):.0f}", f"{sum(trained) / len(trained):.1f}"])
    return table(["setting", "SFT, CPU s", "100 updates of RL, CPU s"], rows)


def qwen_table(found: Sequence[Record]) -> str:
    """The tiny Qwen2.5-VL: what was trained, and what each stage reached on held-out clips."""
    named = [one for one in found if one["setting"] == "qwen"]
    own = [one for one in named if "test" in one]
    if not own:
        return "Not run yet."
    first = own[0]
    made = (
        f"{first['weights']:,} weights; SFT is {first['updates']:,} updates of {first['batch']} clips from "
        f"{first['clips']:,}, learning rate {first['rate']:g}. The best blind answer earns "
        f"{100 * first['blind']:.1f}."
    )
    keys = [("sampled", key) for key in ("form", "answers", "observations", "invented", "reasoning")]
    keys += [("greedy", key) for key in ("answers", "observations")]
    rows = []
    for one in own:
        numbers = [f"{100 * one['test'][mode][key]:.1f}" for mode, key in keys]
        names = [one["arm"], str(one["seed"]), str(one["updates"]), str(one["cpu_s"])]
        rows.append([*names, *numbers])
    head = [
        "arm", "seed", "updates", "CPU s", "whole traces", "answers", "observations right", "invented",
        "reasoning follows", "greedy answers", "greedy observations",
    ]  # fmt: skip
    tries = [_try(one) for one in named if one["purpose"] == "try"]
    return "\n\n".join([made, table(head, rows), *tries])


def _try(one: Record) -> str:
    """A run of SFT that was looked at on the way and ended by hand."""
    curve = one["curve"]
    points = zip(curve["step"], curve["greedy"], strict=True)
    told = ", ".join(f"{100 * share:.1f} at update {step:,}" for step, share in points)
    return (
        f"A try with a schedule of {one['updates']:,} updates and {one['clips']:,} clips, ended by hand at "
        f"update {one['ended']:,}: greedy answers on {curve['questions']} held-out clips {told}."
    )


def filled(prose: str, found: Sequence[Record]) -> str:
    """The page: lines `[[NAME]]` and `[[NAME SETTING]]` of the prose become tables."""
    tables: dict[str, Callable[..., str]] = {
        "gate": gates, "main": main_table, "pairs": pairs, "rates": rates, "judges": judge_table,
        "alarms": alarm_table, "alarm-values": alarm_values, "long": long_table,
        "long-judges": long_judges, "open": still_open, "cost": cost, "qwen": qwen_table,
    }  # fmt: skip
    lines = []
    for line in prose.splitlines():
        if line.startswith("[[") and line.endswith("]]"):
            name, *rest = line[2:-2].split()
            lines.append(tables[name](found, *rest))
        else:
            lines.append(line)
    same = "; ".join(f"`{name}`: {why}" for name, why in SAME.items())
    return "\n".join(lines).replace("{same}", same) + "\n"


def figures(found: Sequence[Record]) -> dict[str, Any]:
    """What other pages quote: PA-GRPO minus each arm, and the observations under each judge, in points."""

    def kept(one: Cell) -> dict[str, float]:
        return {"mean": round(one.mean, 1), "half": round(one.half, 1), "seeds": one.n}

    ahead: dict[str, Any] = {}
    for setting in MAIN:
        reference = runs(found, setting, REFERENCE)
        others = {name: runs(found, setting, name) for name in arms() if name != REFERENCE}
        ahead[setting] = {
            name: kept(paired(reference, own, share("sampled", "answers")))
            for name, own in others.items()
            if len(set(own) & set(reference)) > 1
        }
    judges: dict[str, Any] = {}
    for judge, error, own in judged(found):
        shares = {
            key: kept(over_seeds(100 * one["test"]["sampled"][key] for one in own.values()))
            for key in ("observations", "invented")
        }
        judges.setdefault(judge, {})[f"errors_{error or 0}"] = shares
    return {"pa_grpo_minus": ahead, "judges": judges}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cells", type=Path, help="folder of a run; its cells are gathered into --results first"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--figures", type=Path, default=HERE)
    record.add_option(parser)
    args = parser.parse_args(arguments)
    if args.cells:
        gather(args.cells / "cells", args.results)
    found = records(args.results)
    args.page.write_text(filled((HERE / "page.md").read_text(), found))
    print(args.page)
    record.save(args, "miniature", figures(found))
    from benchmarks.miniature.figures import draw

    for path in draw(found, args.figures):
        print(path)


if __name__ == "__main__":
    main()
