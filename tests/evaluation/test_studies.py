"""What a study varies, and what its table and figure are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.studies import (
    CellFigure,
    CellResult,
    Study,
    StudySpec,
    cells_of,
    lines_of,
    render_study,
)
from videop2r_data.evaluation.studies_plot import draw_study, plot_study
from videop2r_data.plots import LIGHT
from videop2r_data.schemas import EvalPlan, LookSpec, MediaSpec


def plan(**media: Any) -> EvalPlan:
    backend = {"kind": "openai", "model": "m", "base_url": "http://localhost:1/v1"}
    return EvalPlan.model_validate({"backend": backend, "benchmarks": ["demo"], "media": media})


def spec(kind: str, **varied: Any) -> StudySpec:
    embedder = varied.pop("embedder", "")
    return StudySpec.model_validate({"kind": kind, "vary": varied, "embedder": embedder})


def test_a_grid_is_every_combination_and_the_rest_stays_as_in_the_plan() -> None:
    cells = cells_of(plan(quality=80), spec("frames", frames=[4, 8], pixels=[3136, 6272]))
    assert [cell.name for cell in cells] == [
        "frames-4_pixels-3136", "frames-4_pixels-6272", "frames-8_pixels-3136", "frames-8_pixels-6272"
    ]  # fmt: skip
    assert [(c.media.frames, c.media.max_pixels, c.media.quality) for c in cells][2] == (8, 3136, 80)
    assert all(cell.media.look is None for cell in cells), "frames as ever: their calls keep their keys"
    rates = cells_of(plan(), spec("frames", fps=[1, 2]))
    assert [(c.media.fps, c.media.frames) for c in rates] == [(1.0, 32), (2.0, 32)]


def test_perturbations_are_made_one_at_a_time_beside_the_frames_as_they_are() -> None:
    cells = cells_of(plan(), spec("robustness", drop=[0.5], blur=[1, 2], frames=[8]))
    assert [cell.varied for cell in cells] == [
        {"frames": 8}, {"frames": 8, "drop": 0.5}, {"frames": 8, "blur": 1.0}, {"frames": 8, "blur": 2.0}
    ]  # fmt: skip
    assert cells[0].media.look is None and cells[2].media.look == LookSpec(blur=1.0)
    assert cells_of(plan(), spec("robustness", noise=[0.0, 9.0]))[1].varied == {"noise": 9.0}, "0 is the plan"


def test_the_usual_points_and_what_cannot_be() -> None:
    assert len(cells_of(plan(), spec("robustness"))) == 1 + 3 * 4
    assert len(cells_of(plan(), spec("frames"))) == 8
    chosen = cells_of(plan(), spec("selection"))
    assert [c.media.look.select if c.media.look else "uniform" for c in chosen] == ["uniform", "scenes"] * 2
    asked = spec("selection", select=["question"], embedder="clip")
    assert cells_of(plan(), asked)[0].media.look == LookSpec(select="question", embedder="clip")
    with pytest.raises(ConfigError, match="embedder"):
        cells_of(plan(), spec("selection", select=["question"]))
    with pytest.raises(ConfigError, match=r"drop 1\.5"):
        cells_of(plan(), spec("robustness", drop=[1.5]))
    # the plan's own perturbation stays where the study does not touch it
    kept = cells_of(plan(look={"noise": 5.0}), spec("frames", frames=[4]))
    assert kept[0].media.look == LookSpec(noise=5.0)


def figure(value: float | None, at: int) -> CellFigure:
    around = (None, None) if value is None else (value - 0.1, value + 0.1)
    return CellFigure(
        benchmark="b | <i>", protocol="p", value=value, low=around[0], high=around[1], n=9, question_only=0.25,
        frames=4.0, input_tokens=10.0 * at, output_tokens=5.0, usd=0.01 * at, questions=9, answered=9,
        seconds_p50=0.5 * at if at else None, seconds_p95=None,
    )  # fmt: skip


def made(kind: str, cells: list[tuple[dict[str, Any], float | None]], **varied: Any) -> Study:
    results = tuple(
        CellResult(
            name=str(i), varied=values, media=MediaSpec(), figures=(figure(value, i),)
        )
        for i, (values, value) in enumerate(cells)
    )  # fmt: skip
    return Study(name="s$x$", spec=spec(kind, **varied), model="m", cells=results, missing=0)


def test_lines_of_a_grid_and_of_severities() -> None:
    grid = made(
        "frames",
        [({"frames": 8, "pixels": 1}, 0.5), ({"frames": 4, "pixels": 1}, 0.4), ({"frames": 4, "pixels": 2}, None)],
        frames=[4, 8], pixels=[1, 2],
    )  # fmt: skip
    lines = {
        name: [(at, found.value) for at, found in points]
        for name, points in lines_of(grid, "b | <i>", "p").items()
    }
    assert lines == {"pixels 1": [(4.0, 0.4), (8.0, 0.5)]} and grid.spec.along == "frames"
    worse = made(
        "robustness", [({}, 0.5), ({"blur": 2.0}, 0.3), ({"drop": 0.5}, 0.4)], blur=[2.0], drop=[0.5]
    )
    lines = {
        name: [(at, found.value) for at, found in points]
        for name, points in lines_of(worse, "b | <i>", "p").items()
    }
    assert lines == {"drop": [(0.0, 0.5), (0.5, 0.4)], "blur": [(0.0, 0.5), (2.0, 0.3)]}
    assert worse.spec.along == "severity" and worse.protocols == [("b | <i>", "p")]


def test_the_table_is_text_and_says_what_is_missing() -> None:
    study = made("frames", [({"frames": 4}, 0.4), ({"frames": 8}, None)]).model_copy(update={"missing": 2})
    lost = CellResult(
        name="c", varied={"frames": 64}, media=MediaSpec(), figures=(), failed="too <long>\nfor it"
    )
    study = study.model_copy(update={"cells": (*study.cells, lost)})
    text = render_study(study)
    assert "## b \\| \\<i\\>: p" in text and "Not finished: 2 settings" in text
    assert "| frames 4 | 0.400 | 0.300 to 0.500 | 0.250 | 4.0 | 0 | 5 | - | 0.0000 |" in text
    assert "| frames 8 | - |  | 0.250 | 4.0 | 10 | 5 | 0.50 | 0.0100 |" in text, "no call was timed up to p95"
    assert "| frames 64 | failed | - |" in text and "- frames 64 failed: too \\<long\\> for it" in text


def test_the_figure_has_a_panel_for_accuracy_tokens_and_seconds(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    study = made(
        "robustness", [({}, 0.5), ({"blur": 2.0}, 0.3), ({"drop": 0.5}, 0.4)], blur=[2.0], drop=[0.5]
    )
    panels: Any = draw_study(study, LIGHT).get_axes()
    assert [axes.get_xlabel() for axes in panels] == ["severity", "tokens read", "seconds of a call, median"]
    first = [container.lines[0].get_xydata().tolist() for container in panels[0].containers]
    assert first == [[[0.0, 50.0], [0.5, 40.0]], [[0.0, 50.0], [2.0, 30.0]]]
    seconds = [container.lines[0].get_xydata().tolist() for container in panels[2].containers]
    assert seconds == [[[1.0, 40.0]], [[0.5, 30.0]]], "the first cell was answered from the journal"
    untimed = made("frames", [({"frames": 4}, 0.4)])
    assert [t.get_text() for t in draw_study(untimed, LIGHT).get_axes()[2].texts] == ["not measured"]
    before = plot_study(study, tmp_path).read_bytes()
    assert plot_study(study, tmp_path).read_bytes() == before
    assert plot_study(study, tmp_path, dark=True).read_bytes() != before
