"""Figures, ratios and table of `throughput.py`, from what its rounds measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

RUN_NAMES = {
    "text": "throughput_text",
    "image": "throughput_scaled_images",
    "fits": "throughput_images",
    "clips": "throughput_clips",
}
"""The name of the recorded run, by `--media`."""
DIGITS = {
    "calls_per_s": 1,
    "calls_per_s_whole": 1,
    "cpu_ms_per_call": 3,
    "decoder_ms_per_file": 2,
    "peak_mb": 1,
    "max_in_flight": 0,
}
"""What is kept of a run, and to how many digits."""
OURS = ("bare", "bare-uvloop", "build", "passthrough")
Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def figures(rounds: Runs, *, in_flight: int, samples: int, latency_s: float) -> dict[str, Any]:
    """Medians of each kind over its rounds, and the ratios of those medians."""
    kinds: dict[str, dict[str, Any]] = {}
    for kind, runs in rounds.items():
        kinds[kind] = {
            name: round(median(run[name] for run in runs), digits)
            for name, digits in DIGITS.items()
            if name in runs[0]
        }
        kinds[kind]["calls_per_s_all"] = [round(run["calls_per_s"], 1) for run in runs]
        kinds[kind]["calls"] = runs[0]["calls"]
    return {
        "rounds": len(rounds["build"]),
        "in_flight": in_flight,
        "samples": samples,
        "latency_s": latency_s,
        "kinds": kinds,
        "ratios": ratios(kinds),
    }


def ratios(kinds: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Calls per second: the build's, its whole run's and with `passthrough`, each by those of another kind.

    Like is compared with like: the calls of the build with the calls of a rival (`build_of_curator`), its
    whole run with the whole run of a rival (`whole_of_curator`). The bare loop has nothing but calls.

    >>> bare, build = {"calls_per_s": 4000.0}, {"calls_per_s": 3000.0, "calls_per_s_whole": 2000.0}
    >>> ratios({"bare": bare, "build": build, "curator": {"calls_per_s": 400.0, "calls_per_s_whole": 320.0}})
    {'build_of_bare': 0.75, 'whole_of_bare': 0.5, 'build_of_curator': 7.5, 'whole_of_curator': 6.25}
    """
    bare, build = kinds["bare"]["calls_per_s"], kinds["build"]
    found = {"build_of_bare": build["calls_per_s"] / bare, "whole_of_bare": build["calls_per_s_whole"] / bare}
    if "passthrough" in kinds:
        found["passthrough_of_bare"] = kinds["passthrough"]["calls_per_s"] / bare
    for rival in (kind for kind in kinds if kind not in OURS):
        for ours, name in (("build", "calls_per_s"), ("whole", "calls_per_s_whole")):
            found[f"{ours}_of_{rival}"] = build[name] / kinds[rival][name]
    return {name: round(value, 3) for name, value in found.items()}


def table(found: Mapping[str, Any], *, title: str) -> str:
    """The figures as text."""
    bare = found["kinds"]["bare"]["calls_per_s"]
    lines = [
        f"{title}, server latency {found['latency_s'] * 1000:.0f} ms; medians of {found['rounds']}",
        f"{'':14}{'calls/s':>9}{'whole run':>11}{'CPU ms/call':>13}{'decoder ms/file':>17}"
        f"{'peak MB':>9}{'/ bare':>8}",
    ]
    for name, kind in found["kinds"].items():
        whole, decoder = kind.get("calls_per_s_whole"), kind.get("decoder_ms_per_file")
        lines.append(
            f"{name:14}{kind['calls_per_s']:9.0f}{'' if whole is None else f'{whole:.0f}':>11}"
            f"{kind['cpu_ms_per_call']:13.3f}{'' if decoder is None else f'{decoder:.2f}':>17}"
            f"{kind['peak_mb']:9.0f}{kind['calls_per_s'] / bare:8.2f}"
        )
    return "\n".join(lines + [f"{name}: {value}" for name, value in found["ratios"].items()])
