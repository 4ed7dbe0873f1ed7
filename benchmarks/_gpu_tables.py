"""The results of `gpu_all.py` as tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STEPS = ("3b-lora", "7b-lora", "3b-full")


def page(found: Mapping[str, Any]) -> str:
    """A page: where and when, what ran, steps, memory, checks, profile, and what stays open.

    Args:
        found: the JSON of `gpu_all.py`.
    """
    parts: Mapping[str, Any] = found["parts"]
    size = " (quick: tiny shapes; its seconds say nothing about real ones)" if found["quick"] else ""
    text = [f"# On one device{size}", "", _where(found), "", *_ran(parts)]
    steps = [
        (name, one)
        for name in ("quick", *STEPS)
        for one in _lines(parts, name)
        if one.get("stage") is not None
    ]
    if steps:
        text += [
            "",
            "## Steps",
            "",
            *_steps(steps),
            "",
            "## Memory, highest in each phase, GiB",
            "",
            *_memory(steps),
            *_of_what(parts),
        ]
    if checks := _lines(parts, "correct"):
        rows = [
            [
                one["check"],
                f"{one['value']:.2g}",
                _number(one["limit"]),
                "yes" if one["holds"] else "**no**",
                one["what"],
            ]
            for one in checks
            if "check" in one
        ]
        text += ["", "## bfloat16", "", *table(["check", "seen", "limit", "holds", "what"], rows)]
    if top := next((one["top"] for one in _lines(parts, "profile") if one.get("top")), None):
        rows = [[f"`{one['name'][:60]}`", str(one["calls"]), f"{one['share']:.1%}"] for one in top[:12]]
        text += ["", "## Profile of the slowest step", "", *table(["kernel", "calls", "share"], rows)]
    return "\n".join(text) + "\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table.

    >>> table(["a", "b"], [["1", "2"]])
    ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    lines = [heads, *rows]
    drawn = ["| " + " | ".join(line) + " |" for line in lines]
    return [drawn[0], "|" + "---|" * len(heads), *drawn[1:]]


def _lines(parts: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parts.get(name, {}).get("results", [])
    return found


def _where(found: Mapping[str, Any]) -> str:
    machine = next(iter(_lines(found["parts"], "machine")), None)
    text = f"Commit {found['commit']}, {found['date']}."
    if machine is None:
        return text
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    memory = f", {machine['memory_gib']} GiB" if machine["cuda"] else ""
    driver = f", driver {machine['driver']}" if machine["driver"] else ""
    return (
        f"{text} {machine['device']}{memory}{driver}; {versions}. A large matrix product ran at "
        f"{machine['measured']:g} TFLOP/s; MFU is a share of {machine['peak']:g} ({machine['peak_from']})."
    )


def _ran(parts: Mapping[str, Any]) -> list[str]:
    rows = [
        [name, one["status"], f"{one['seconds']:g}", f"`{one['command']}`"] for name, one in parts.items()
    ]
    return table(["part", "how it ended", "seconds", "command"], rows)


def _steps(steps: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    shares = ("decode", "prefill", "rollout", "judge", "logps", "update", "sync", "data")
    heads = ["part", "stage", "s a step", "tokens/s", *shares, "MFU step", "MFU update"]
    rows = []
    for name, one in steps:
        parts = [f"{one['share'].get(share, 0.0):.1%}" for share in shares]
        mfu = [_percent(one["mfu"]["step"]), _percent(one["mfu"]["update"])]
        rows.append([name, one["stage"], f"{one['step_s']:g}", f"{one['tokens_per_s']:g}", *parts, *mfu])
    return [*table(heads, rows), "", "`rollout`: drawing beside decode and prefill; `logps`: the reference."]


def _memory(steps: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    phases = ("load", "rollout", "reference", "update")
    rows = []
    for name, one in steps:
        seen = [f"{one['peaks_gib'][phase]:g}" if phase in one["peaks_gib"] else "-" for phase in phases]
        counted = _number(one.get("plan_gib"), missing="not available")
        rows.append([name, one["stage"], *seen, f"{one['peak_gib']:g}", counted])
    return table(["part", "stage", *phases, "peak", "`p2r-train plan`"], rows)


def _number(value: float | None, missing: str = "-") -> str:
    return missing if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _of_what(parts: Mapping[str, Any]) -> list[str]:
    """A sentence on what was measured, where it is not a card's memory."""
    if all(machine["cuda"] for machine in _lines(parts, "machine")):
        return []
    return [
        "",
        "Without a card this is the memory of the whole process: interpreter and libraries are in every",
        "column, and `p2r-train plan` does not count them.",
    ]
