"""Figures of releases made by hand: their data are the counts, their pictures are readable and not blank."""

from __future__ import annotations

import builtins
import itertools
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image

from tests.cards.test_stats import Made, in_memory, row
from videop2r_data.cards.figures.counts import MOST, REASONS, FunnelData, SourcesData, TableData, by_stage
from videop2r_data.cards.figures.draw import KINDS, FigureOptions, gather, make_figures, redraw
from videop2r_data.cards.figures.index import FigureEntry, FigureIndex, picture, read_figures
from videop2r_data.cards.figures.media import MediaData
from videop2r_data.cards.figures.stats import compute_stats
from videop2r_data.cards.figures.words import SIZE, CloudData, WordsData, lay_out, log_odds, picture_of
from videop2r_data.errors import ExportError, MissingExtraError, install_line
from videop2r_data.plots.frame import HEAD, WIDE, label, new_figure, png_bytes
from videop2r_data.plots.palette import DARK, LIGHT

PLAIN = [name for name in KINDS if name != "segments"]
"""The others belong to traces in another form than the default: tests/cards/test_other_traces.py."""
WORDS = [
    "red",
    "ball",
    "cube",
    "left",
    "right",
    "moves",
    "stands",
    "behind",
    "near",
    "lifts",
    "table",
    "window",
    "green",
    "slowly",
    "again",
]


def many(count: int = 40) -> Made:
    """A release of both modalities, three sources, four types and some rejected rows."""
    rng = random.Random(0)
    rows = []
    for n in range(count):
        seen = " ".join(rng.choices(WORDS, k=20 + n % 9))
        rows.append(
            row(
                n,
                data_source=("Alpha", "Beta", "Gamma_$x$")[n % 3],
                data_type="image" if n % 4 == 0 else "video",
                problem_type=("numerical", "multiple choice", "OCR", "free-form")[n % 5 % 4],
                observation=f"Based on the question, I need to notice {seen}.",
                process=f"<think>Based on the observations, wait, so {seen} hence</think><answer>{n}</answer>",
                frame_indices=list(range(1 if n % 4 == 0 else 16)),
                frame_times_s=[k * (1 + n % 7) / 10 for k in range(1 if n % 4 == 0 else 16)],
            )
        )
    rejected = [("verify", "low_score")] * 9 + [("judge", "insufficient")] * 4 + [("media", "missing")]
    return in_memory(
        {"sft": rows, "rl": [row(0)], "rejected": [{"stage": s, "reason": r} for s, r in rejected]}
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures") / "deep" / "figures"
    stats, index = make_figures(many(), folder)
    assert stats == compute_stats(many())
    assert [f.name for f in index.figures] == PLAIN and index.omitted == []
    return folder


def data_of(folder: Path, name: str) -> Any:
    return orjson.loads((folder / f"{name}.json").read_bytes())


def test_every_figure_is_a_small_picture_in_light_and_dark(drawn: Path) -> None:
    index = read_figures(drawn)
    assert index.rows == {"sft": 40, "rl": 1, "rejected": 14}
    for entry in index.figures:
        shades = []
        for file, look in ((entry.light, LIGHT), (entry.dark, DARK)):
            assert (drawn / file).stat().st_size < 200_000
            with Image.open(drawn / file) as png:
                assert png.format == "PNG" and (png.width, png.height) == (entry.width, entry.height)
                pixels = np.asarray(png.convert("RGB"))
            paper = np.array([int(look.paper[i : i + 2], 16) for i in (1, 3, 5)])
            assert (pixels[0, 0] == paper).all(), "the corner is the background"
            inked = (np.abs(pixels.astype(int) - paper).max(axis=2) > 40).mean()
            assert 0.005 < inked < 0.6, (file, inked)
            shades.append(np.abs(pixels.astype(int) - paper).max(axis=2) > 40)
        assert entry.width == round(WIDE * 200) and entry.height > 200
        same = (shades[0] == shades[1]).mean()
        assert same > 0.9, f"{entry.name}: light and dark show the same thing"


def test_the_data_are_the_counts(drawn: Path) -> None:
    # n % 4 == 0: images; n % 5 % 4: types 0 and 4 are numerical
    table = data_of(drawn, "table")
    assert table["rows"] == 40
    assert {d: sum(r.values()) for d, r in table["table"].items()} == {"image": 10, "video": 30}
    assert sum(r["numerical"] for r in table["table"].values()) == 16
    sources = data_of(drawn, "sources")
    assert sources["sources"] == 3 and list(sources["counts"]) == ["video", "image"]
    by_source = Counter(
        {s: sum(k.values()) for r in sources["counts"].values() for s, k in r.items() if s == "Alpha"}
    )
    assert sum(k.get("OCR", 0) for r in sources["counts"].values() for k in r.values()) == 8
    assert by_source["Alpha"] in (4, 10)
    funnel = data_of(drawn, "funnel")
    assert (funnel["rows_in"], funnel["accepted"]) == (54, 40)
    assert [(x["stage"], x["rows"]) for x in funnel["lost"]] == [("media", 1), ("verify", 9), ("judge", 4)]
    media = data_of(drawn, "media")
    assert media["frame_counts"] == {"1": 10, "16": 30}
    assert media["seconds"]["max"] == 1.5 * 7 and media["seconds"]["min"] == 1.5
    assert sum(media["seconds_counts"]) == 30
    projected = data_of(drawn, "projection")
    assert projected["rows_sampled"] == projected["rows_with_both"] == 40
    assert projected["rows"] == list(range(40))


def test_lengths_by_hand(drawn: Path) -> None:
    # P: seven words of opening, then 20 + n % 9; R: "Based on the observations, wait, so … hence n": 8 more
    lengths = data_of(drawn, "lengths")
    expected = [8 + 20 + n % 9 for n in range(40)]
    assert lengths["perception"]["spread"]["min"] == min(expected)
    assert lengths["perception"]["spread"]["max"] == max(expected)
    assert sum(lengths["perception"]["counts"]) == sum(lengths["reasoning"]["counts"]) == 40
    assert lengths["reasoning"]["spread"]["min"] == 28


def test_the_words_are_those_of_the_texts_without_the_opening(drawn: Path) -> None:
    words = {w["word"] for w in data_of(drawn, "words")["perception"]}
    assert words and words <= set(WORDS)
    telling = data_of(drawn, "telling-words")
    assert {"wait", "hence", "so"} <= set(list(telling["reasoning"])[:3])


def test_redrawing_from_the_data_gives_the_same_bytes(drawn: Path) -> None:
    before = {p.name: p.read_bytes() for p in drawn.iterdir()}
    for png in drawn.glob("*.png"):
        png.write_bytes(b"")
    redraw(drawn)
    assert {p.name: p.read_bytes() for p in drawn.iterdir()} == before


# what stands where


def texts_of(figure: Any) -> list[tuple[str, Any]]:
    """Visible texts with their boxes in pixels."""
    from matplotlib.text import Text

    figure.canvas.draw()
    hidden = set()
    for axes in figure.axes:
        shown = axes.axison
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not shown or not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    hidden |= {tick.label1, tick.label2}
    found = []
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in hidden:
            found.append((text.get_text(), text.get_window_extent()))
    return found


def assert_readable(figure: Any) -> None:
    """No text touches another one or leaves the figure."""
    texts = texts_of(figure)
    assert len(texts) >= 3
    width, height = figure.canvas.get_width_height(physical=True)
    for at, (name, box) in enumerate(texts):
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, (name, box)
        for other, second in texts[at + 1 :]:
            wide = min(box.x1, second.x1) - max(box.x0, second.x0)
            high = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert wide <= 1 or high <= 1, f"{name!r} lies on {other!r}"


@pytest.mark.parametrize("name", PLAIN)
def test_no_label_touches_another(drawn: Path, name: str) -> None:
    data = KINDS[name].data.model_validate_json((drawn / f"{name}.json").read_bytes())
    assert_readable(data.draw(LIGHT))


def paper_sized() -> Counter[tuple[str, str, str]]:
    """The paper's table over many sources, some with hard names."""
    table = {
        "image": {
            "multiple choice": 47091,
            "numerical": 18476,
            "OCR": 4014,
            "free-form": 2501,
            "regression": 693,
        },
        "video": {"multiple choice": 86910, "numerical": 1371, "free-form": 1006},
    }
    names = [
        "LLaVA-Video-178K", "A very long name of a source that nobody would think of", "$\\frac{1}{0}$ \n<b>x</b>",
        "\u202egpj.exe", "数据集", "", *(f"Source-{n}" for n in range(30)),
    ]  # fmt: skip
    counts: Counter[tuple[str, str, str]] = Counter()
    for data_type, kinds in table.items():
        for kind, rows in kinds.items():
            for at, source in enumerate(names):
                counts[source, data_type, kind] = rows // 40
                rows -= rows // 40
                if at == len(names) - 1:
                    counts[source, data_type, kind] += rows
    return counts


HARD: dict[str, Any] = {
    "table": TableData.of("sft", paper_sized()),
    "sources": SourcesData.of("sft", paper_sized()),
    "funnel": FunnelData.of(
        162_062,
        {"pool/bad_options": 120, "media/missing": 3021, "generate/completion_cut": 512}
        | {f"verify/reason_number_{n}_with_a_long_name": 70_000 // (n + 1) for n in range(14)}
        | {"judge/insufficient": 20_417, "$x$/\u202e<i>": 3},
    ),
    "lengths": WordsData.of(
        "sft",
        Counter({n: 1000 + n for n in range(40, 160)}),
        Counter(dict.fromkeys(range(100, 500), 900) | {9000: 2}),
    ),
    "media": MediaData.of(
        "sft", Counter({n: n * 50 for n in range(4, 65)}), Counter({n * 700: 300 - n for n in range(300)})
    ),
}


@pytest.mark.parametrize("name", HARD)
def test_a_large_set_with_hostile_names_is_readable_too(name: str) -> None:
    figure = HARD[name].draw(LIGHT)
    png_bytes(figure)  # no warning of a missing glyph, no formula in a name
    assert_readable(figure)
    assert HARD[name].caption()


def test_sums_stay_whole_when_names_are_summed_up() -> None:
    assert HARD["table"].rows == 162_062
    assert sum(sum(r.values()) for r in HARD["table"].table.values()) == 162_062
    sources = HARD["sources"].counts
    assert sum(n for r in sources.values() for k in r.values() for n in k.values()) == 162_062
    assert [name for name in sources["video"] if "other" in name] == ["24 other sources"]
    assert HARD["sources"].sources == 36


def test_types_beyond_what_can_be_shown_are_summed_up() -> None:
    counts = Counter({("s", f"m{n}", f"t{n}"): 20 - n for n in range(12)})
    table = TableData.of("sft", counts)
    assert table.rows == sum(counts.values())
    kinds = {kind for r in table.table.values() for kind in r}
    assert len(table.table) == MOST and len(kinds) == MOST and "other types" in kinds
    assert sum(table.table["other"].values()) == sum(20 - n for n in range(7, 12))
    assert_readable(table.draw(LIGHT))


def test_rare_reasons_of_a_step_are_summed_up_and_nothing_is_lost() -> None:
    funnel = HARD["funnel"]
    stages = by_stage(funnel.lost)
    assert list(stages)[:4] == ["pool", "media", "generate", "verify"] and list(stages)[-1] == "$x$"
    assert len(stages["verify"]) == REASONS + 1 and stages["verify"][-1].reason == "6 other reasons"
    assert sum(x.rows for lost in stages.values() for x in lost) == funnel.rows_in - funnel.accepted


# single parts


def test_a_word_cloud_has_no_overlap_and_follows_frequency() -> None:
    placed = lay_out({f"word{'x' * (n % 9)}{n}": 1000 // (n + 1) for n in range(80)})
    assert len(placed) == 80
    taken = np.zeros((SIZE[1], SIZE[0]), int)
    for word in placed:
        assert word.x >= 0 and word.y >= 0
        taken[word.y : word.y + word.high, word.x : word.x + word.wide] += 1
    assert taken.max() == 1
    assert all(a.size >= b.size for a, b in itertools.pairwise(placed))
    assert {word.upright for word in placed} == {True, False}
    # all ink lies in the boxes
    pixels = picture_of(placed, "#000000", LIGHT, scale=1)
    ink = (pixels < 200).any(axis=2)
    assert ink.sum() > 5000 and not (ink & (np.pad(taken, 1)[1:-1, 1:-1] == 0)).any()


def test_words_that_the_font_lacks_are_left_out() -> None:
    data = CloudData.of("sft", Counter({"ball": 3, "数据": 9, "x" * 30: 5, "the": 50}), Counter())
    assert [w.word for w in data.perception] == ["ball"] and data.reasoning == []


def test_log_odds_by_hand() -> None:
    # left: a 30, b 10; right: a 10, b 30; prior a twentieth: 2 each, 4 in all
    scores = log_odds(Counter(a=30, b=10), Counter(a=10, b=30))
    delta = np.log(32 / 12) - np.log(12 / 32)
    assert scores["a"] == pytest.approx(delta / np.sqrt(1 / 32 + 1 / 12)) and scores["b"] == -scores["a"]
    assert log_odds(Counter(a=1), Counter(a=1)) == {} and log_odds(Counter(), Counter(a=1, b=1)) == {}


def test_a_long_tail_is_cut_and_counted() -> None:
    lengths = WordsData.of("sft", Counter({50: 990, 60: 9, 5000: 1}), Counter())
    assert lengths.perception.above == 1 and sum(lengths.perception.counts) == 1000
    assert lengths.bin_width * len(lengths.perception.counts) < 100
    media = MediaData.of("sft", Counter({1: 2}), Counter({1000: 99, 3_600_000: 1}))
    assert media.above == 1 and sum(media.seconds_counts) == 100


def test_a_name_from_the_data_becomes_one_line() -> None:
    assert label("a\u202eb\x00c\nd") == "abc d"
    assert label("数x") == "\ufffdx"
    assert len(label("x" * 99)) == 26


def test_a_figure_has_its_head_above_the_axes() -> None:
    figure = new_figure("Title", "told", LIGHT, high=2)
    axes = figure.subplots()
    figure.canvas.draw()
    assert axes.get_window_extent().y1 <= figure.bbox.height - HEAD * figure.dpi + 1


# what is not there


def test_a_release_without_frames_texts_or_rejected_rows_says_so(tmp_path: Path) -> None:
    question = {k: v for k, v in row(0).items() if k in ("problem", "problem_type", "data_type", "path")}
    _, index = make_figures(in_memory({"rl": [question, question]}), tmp_path)
    assert [f.name for f in index.figures] == ["table", "sources", "near-copies"]
    why = {o.name: o.why for o in index.omitted}
    assert why["funnel"].startswith("the release has no config rejected")
    assert why["media"] == "the rows of rl do not say which frames were seen"
    assert why["lengths"] == why["words"] == "the rows of rl hold no perception and no reasoning"
    assert why["projection"] == "0 rows with perception and reasoning; at least 20 are needed"
    assert read_figures(tmp_path) == index


def test_an_empty_release(tmp_path: Path) -> None:
    _, index = make_figures(in_memory({"sft": [], "rejected": []}), tmp_path)
    assert index.figures == [] and len(index.omitted) == len(PLAIN)
    assert {o.name: o.why for o in index.omitted}["funnel"] == "no row was rejected"


def test_figures_of_an_earlier_run_go_and_other_files_stay(tmp_path: Path, drawn: Path) -> None:
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    (tmp_path / "notes.txt").write_text("mine")
    make_figures(in_memory({"rl": [row(0)]}), tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert "notes.txt" in names and "funnel.png" not in names and "funnel.json" not in names
    assert "table.png" in names


def test_a_foreign_index_removes_nothing(tmp_path: Path) -> None:
    (tmp_path / "precious.json").write_text("{}")
    entry = FigureEntry(
        name="x", title="", caption="", light="precious.json", dark="precious.json", data="precious.json",
        width=1, height=1,
    )  # fmt: skip
    (tmp_path / "index.json").write_bytes(
        orjson.dumps(FigureIndex(where="x", rows={}, figures=[entry]).model_dump(mode="json"))
    )
    make_figures(in_memory({"rl": [row(0)]}), tmp_path)
    assert (tmp_path / "precious.json").exists()


def test_rejected_rows_without_accepted_ones(tmp_path: Path) -> None:
    found = gather(in_memory({"rejected": [{"stage": "media", "reason": "missing"}]}), FigureOptions())
    data = KINDS["funnel"].of(found, FigureOptions())
    assert isinstance(data, FunnelData) and (data.rows_in, data.accepted) == (1, 0)
    assert_readable(data.draw(LIGHT))


@pytest.mark.parametrize(("module", "what"), [("matplotlib", "matplotlib"), ("sklearn", "scikit-learn")])
def test_a_missing_extra_is_told_before_anything_is_read(
    module: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == module:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    release = many()
    with pytest.raises(MissingExtraError, match=f"{what} is not installed") as caught:
        make_figures(release, tmp_path / "figures")
    assert caught.value.hint == f"run: {install_line('report')}"
    assert release.asked == [] and not (tmp_path / "figures").exists()


# the index


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"where": "x", "rows": {"a": -1.5}}'])
def test_a_damaged_index(text: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ExportError, match="no index of figures"):
        read_figures(tmp_path)


def test_an_index_that_points_elsewhere(tmp_path: Path, drawn: Path) -> None:
    index = read_figures(drawn)
    bad = index.figures[0].model_copy(update={"light": "../secret.png"})
    (tmp_path / "secret.png").write_text("x")
    inner = tmp_path / "in"
    inner.mkdir()
    (inner / "index.json").write_bytes(
        orjson.dumps(index.model_copy(update={"figures": [bad]}).model_dump(mode="json"))
    )
    with pytest.raises(ExportError, match="is not there"):
        read_figures(inner)


def test_data_of_another_figure_is_refused(tmp_path: Path) -> None:
    make_figures(in_memory({"rl": [row(0)]}), tmp_path)
    (tmp_path / "table.json").write_bytes((tmp_path / "sources.json").read_bytes())
    with pytest.raises(ExportError, match="not the data of this figure"):
        redraw(tmp_path)


def test_the_picture_of_a_card() -> None:
    entry = FigureEntry(
        name="t", title="T", caption='`sft` <b>"x"</b>', light="t.png", dark="t-dark.png", data="t.json",
        width=1440, height=600,
    )  # fmt: skip
    assert picture(entry, prefix="figures/") == (
        '<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="figures/t-dark.png">\n'
        '  <img src="figures/t.png" width="720" alt="sft &lt;b&gt;&quot;x&quot;&lt;/b&gt;">\n</picture>\n\n'
        "*sft &lt;b&gt;&quot;x&quot;&lt;/b&gt;*\n"
    )
