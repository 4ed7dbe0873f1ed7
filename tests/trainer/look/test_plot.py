from __future__ import annotations

import json
import math
from pathlib import Path

import orjson
import pytest
from PIL import Image

from videop2r_data.errors import SourceError
from videop2r_data.plots import DARK, LIGHT
from videop2r_data.trainer.look.curves import RunCurves, curves_of, panels_for
from videop2r_data.trainer.look.plot import draw_panels, plot_runs

pytest.importorskip("matplotlib")


def write_run(folder: Path, steps: int = 40, shift: float = 0.0, kind: str = "rl") -> Path:
    folder.mkdir(parents=True)
    rows = []
    for step in range(1, steps + 1):
        row: dict[str, float] = {"step": step, "loss": 1 / step, "lr": 1e-6, "grad_norm": 1.0}
        if kind == "rl":
            for process in "pr":
                row[f"reward/accuracy_{process}"] = min(1.0, step / steps + shift)
                row[f"reward/format_{process}"] = 1.0
                row[f"reward/total_{process}"] = 1.0 + step / steps
                row[f"length/{process}"] = 100.0 + step
                row[f"collapsed/{process}"] = step % 5
                row[f"clip_fraction/{process}"] = 0.01
                row[f"unscored/{process}"] = 0
            row |= {
                "reward/total": 3.0,
                "collapsed/sum": 1,
                "groups": 8,
                "kl": 0.01 * step,
                "clip_fraction": 0.01,
            }
        else:
            row["tokens_per_s"] = 1000.0
        rows.append(json.dumps(row))
    (folder / "metrics.jsonl").write_text("\n".join(rows) + '\n{"step": 99, "kl')
    return folder


def test_one_run_shows_the_papers_curves(tmp_path: Path) -> None:
    made = plot_runs([("", write_run(tmp_path / "run"))], tmp_path / "out" / "curves.png")
    assert made.panels == (
        "Accuracy reward", "Format reward", "Length", "Total reward", "Collapsed groups", "KL to the reference",
        "Clipped ratios", "Gradient norm",
    )  # fmt: skip
    data = orjson.loads(made.data.read_bytes())
    assert data["panels"][4]["unit"] == "of 8 groups"
    assert data["panels"][4]["keys"] == ["collapsed/p", "collapsed/r", "collapsed/sum"]
    kl = data["runs"][0]["curves"]["kl"]
    assert kl["steps"] == list(range(1, 41)) and kl["values"][:2] == [0.01, 0.02]
    assert data["runs"][0]["name"] == "run"
    with Image.open(made.png) as picture:
        assert picture.format == "PNG" and picture.width > 800
    assert made.png.stat().st_size < 150_000
    assert made.damaged == 0


def test_runs_are_compared_curve_by_curve_and_seeds_share_a_label(tmp_path: Path) -> None:
    runs = [("pa", write_run(tmp_path / f"pa{i}", shift=0.1 * i)) for i in range(2)]
    runs.append(("", write_run(tmp_path / "grpo")))
    made = plot_runs(runs, tmp_path / "compare.png")
    assert made.panels[:3] == ("Accuracy reward: perception", "Accuracy reward: reasoning", "Total reward")
    assert "Collapsed: perception" in made.panels and "Unscored: perception" not in made.panels
    names = [run["name"] for run in orjson.loads(made.data.read_bytes())["runs"]]
    assert names == ["pa", "pa", "grpo"]


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    one, two = (plot_runs([("", run)], tmp_path / f"{i}.png").png.read_bytes() for i in range(2))
    assert one == two


@pytest.mark.parametrize("dark", [False, True])
def test_the_ground_is_that_of_the_style(tmp_path: Path, dark: bool) -> None:
    made = plot_runs([("", write_run(tmp_path / "run"))], tmp_path / "c.png", dark=dark)
    paper = (DARK if dark else LIGHT).paper
    with Image.open(made.png) as picture:
        assert "#{:02x}{:02x}{:02x}".format(*picture.convert("RGB").getpixel((1, 1))) == paper  # type: ignore[misc]


def test_sft_has_panels_of_its_own(tmp_path: Path) -> None:
    made = plot_runs([("", write_run(tmp_path / "sft", kind="sft"))], tmp_path / "c.png")
    assert made.panels == ("Loss", "Learning rate", "Gradient norm", "Speed")


def test_one_step_a_gap_and_a_strange_name_are_drawn(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a_$x$_{y}", steps=1)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('\n{"step": 3, "kl": NaN, "eval/accuracy": 0.5, "eval/mismatch": 0.0}\n')
    made = plot_runs([("", folder), ("x" * 80, folder)], tmp_path / "c.png")
    assert "Held out: answer accuracy" in made.panels
    kl = orjson.loads(made.data.read_bytes())["runs"][0]["curves"]["kl"]
    assert kl["values"] == [0.01, None]
    assert made.damaged == 2


def test_alarms_are_drawn_with_names_of_their_own(tmp_path: Path) -> None:
    rows = [
        {
            "step": step,
            "reward/total_p": 1.0,
            "alarm/own": 0.6,
            "alarm/empty": 0.1 * step,
            "alarm/shuffled": 0.2,
        }
        for step in (1, 2, 3)
    ]
    quiet = RunCurves("quiet", curves_of([row | {"alarm/raised": 0} for row in rows]))
    loud = RunCurves("loud", curves_of([row | {"alarm/raised": 1} for row in rows]))
    titles = [[p.title for p in panels_for([run], split=False)] for run in (quiet, loud)]
    assert titles[0] == ["Total reward", "Sufficient, by clip"]
    assert titles[1] == [*titles[0], "Alarms that are up"]
    compared = [p.title for p in panels_for([quiet, loud], split=True)]
    assert [title for title in compared if title.startswith("Suff")] == [
        "Sufficient: own clip", "Sufficient: empty clip", "Sufficient: another's clip",
    ]  # fmt: skip
    panel = panels_for([quiet], split=False)[1]
    axes = draw_panels({"quiet": [quiet]}, [panel], LIGHT).axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["own clip", "empty clip", "another's clip"]
    drawn = [line.get_color() for line in axes.get_lines()]
    assert drawn == [line.get_color() for line in legend.get_lines()] and len(set(drawn)) == 3


def test_dynamic_sampling_and_a_black_clip_are_drawn() -> None:
    row = {"reward/total_p": 1.0, "redrawn": 2, "replaced": 1, "kl_blind": 0.5}
    runs = [RunCurves(name, curves_of([row | {"step": 1}])) for name in ("a", "b")]
    panels = panels_for(runs[:1], split=False)
    assert [(panel.title, panel.unit) for panel in panels[1:]] == [
        ("Dynamic sampling", "groups"), ("KL to a black clip", "nats per token"),
    ]  # fmt: skip
    assert [line.label for line in panels[1].lines] == ["redrawn", "replaced"]
    assert [panel.title for panel in panels_for(runs, split=True)] == [
        "Dynamic sampling: redrawn", "Dynamic sampling: replaced", "KL to a black clip",
    ]  # fmt: skip


def test_streams_of_another_trace_have_colours_of_their_own() -> None:
    row = {"step": 1, "reward/total_p": 1.0, "reward/total_r": 2.0, "reward/total_plan": 3.0}
    run = RunCurves("a", curves_of([row]))
    axes = draw_panels({"a": [run]}, panels_for([run], split=False), LIGHT).axes[0]
    assert len({line.get_color() for line in axes.get_lines()}) == 3


def test_chosen_metrics(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert plot_runs([("", run)], tmp_path / "c.png", keys=["kl", "lr"]).panels == (
        "KL to the reference",
        "lr",
    )
    with pytest.raises(SourceError, match=r"no metric 'typo'.*clip_fraction"):
        plot_runs([("", run)], tmp_path / "c.png", keys=["typo"])


def test_a_run_without_a_drawable_metric_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "epoch": 0.5}\n')
    with pytest.raises(SourceError, match="no metric that could be drawn"):
        plot_runs([("", tmp_path)], tmp_path / "c.png")


def _luminance(code: str) -> float:
    parts = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("look", [LIGHT, DARK], ids=["light", "dark"])
def test_every_colour_stands_out_from_its_ground(look: object) -> None:
    """WCAG 2.1 asks 3:1 of graphics and 4.5:1 of text."""
    assert isinstance(look, type(LIGHT))

    def contrast(a: str, b: str) -> float:
        x, y = sorted((_luminance(a), _luminance(b)))
        return (y + 0.05) / (x + 0.05)

    for colour in (*look.runs, look.perception, look.reasoning, look.both):
        assert contrast(colour, look.paper) >= 3.0, colour
    for colour in (look.ink, look.muted, look.scale):
        assert contrast(colour, look.paper) >= 4.5, colour
    assert math.isclose(contrast("#000000", "#ffffff"), 21.0)


def gradient_norm_axes(values: list[float]) -> tuple[str, float, list[str]]:
    """Scale, upper end and words of the gradient norm's panel."""
    run = RunCurves("a", curves_of({"step": i, "grad_norm": v} for i, v in enumerate(values)))
    (panel,) = [p for p in panels_for([run], split=False) if p.title == "Gradient norm"]
    axes = draw_panels({"a": [run]}, [panel], LIGHT).axes[0]
    return axes.get_yscale(), axes.get_ylim()[1], [text.get_text() for text in axes.texts]


def test_a_spike_is_cut_and_told_and_a_mountain_gets_a_logarithmic_axis() -> None:
    calm = [1.0 + i % 3 / 10 for i in range(100)]
    assert gradient_norm_axes(calm)[0] == "linear" and gradient_norm_axes(calm)[1] < 1.5
    spike = [*calm[:50], 9.0, *calm[51:]]
    scale, top, words = gradient_norm_axes(spike)
    assert scale == "linear" and top < 3 and words == ["peak 9, not shown"]
    mountain = [*calm[:50], 12345678.0, *calm[51:]]
    assert gradient_norm_axes(mountain)[0] == "log"
