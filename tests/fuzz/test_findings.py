"""What fuzzing found, each with a small input; docs/security.md lists the runs."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.media.clips import picture
from videop2r_data.benchmarks import load_benchmark
from videop2r_data.builders.sources import open_source
from videop2r_data.errors import ConfigError, MediaError, SourceError
from videop2r_data.files import file_rows, find_model
from videop2r_data.files.release import _read_card
from videop2r_data.media import sample_media
from videop2r_data.media.packets import read_packets
from videop2r_data.media.sampling import probe_media
from videop2r_data.prompts import load_prompt
from videop2r_data.recipes import read_recipe
from videop2r_data.schemas import MediaLimits, MediaSpec, SourceSpec, load_grammar, parse_recipe, parse_set
from videop2r_data.trainer.settings.recipe import load_train_recipe

_LONG = "x" * 300


@pytest.mark.parametrize("mark", [b"pitm", b"iloc", b"av1C"])
def test_a_picture_whose_reader_raises_what_it_likes_is_unreadable(tmp_path: Path, mark: bytes) -> None:
    sink = io.BytesIO()
    Image.fromarray(picture(0, 64, 48)).save(sink, "AVIF")
    path = tmp_path / "a.avif"
    path.write_bytes(sink.getvalue().replace(mark, b"xxxx", 1))
    for look in (lambda: probe_media(path, "image", MediaLimits()), lambda: _sampled(path, "image")):
        with pytest.raises(MediaError) as caught:
            look()
        assert caught.value.reason == "media_unreadable"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_side_data_of_an_unknown_kind_hides_no_rotation(tmp_path: Path, form: str, turn: int) -> None:
    """PyAV raises over EXIF, and over each view of a stereo clip: the file was refused as a crash."""
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / "one.bin"
    Image.fromarray(picture(3, 112, 56)).save(path, form, exif=exif)
    as_clip, as_picture = _sampled(path, "video"), _sampled(path, "image")
    assert as_clip.shape == as_picture.shape
    assert np.abs(as_clip.astype(int) - as_picture.astype(int)).mean() < 12


def _sampled(path: Path, kind: Any) -> Any:
    spec = MediaSpec(frames=1, min_pixels=1, factor=8)
    return sample_media(path, kind, spec, want="array").array


def test_a_stream_that_appears_late_does_not_spoil_the_packets_before_it() -> None:
    """PyAV reads behind the end of its list of streams then, and raises or not as chance has it."""

    def demux(stream: object) -> Any:
        yield SimpleNamespace(size=3)
        yield SimpleNamespace(size=0)
        raise IndexError("list index out of range")

    container = cast(Any, SimpleNamespace(demux=demux))
    assert [packet.size for packet in read_packets(container, cast(Any, None))] == [3]


def test_text_that_is_no_utf8_in_a_release_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "sft-00000-of-00001.parquet"
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xd6\xd6")]
    )
    pq.write_table(pa.table({"problem": text}), path)
    with pytest.raises(SourceError, match=r"sft-00000-of-00001\.parquet: damaged parquet file"):
        list(file_rows(path))


def test_a_recipe_that_extends_nothing_says_where(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("extends: tini\n")
    with pytest.raises(ConfigError, match=r"own\.yaml, extends: no training recipe 'tini'"):
        load_train_recipe(str(path))


@pytest.mark.parametrize(
    "name", [_LONG, "a/" * 3000, "~nobody-is-called-so/x", "~\ud800/x", "\ud800", "a\0b"]
)
def test_a_name_that_no_file_can_have_is_refused_as_any_other(name: str, tmp_path: Path) -> None:
    for read in (load_grammar, load_prompt, load_train_recipe, read_recipe, load_benchmark):
        with pytest.raises(ConfigError):
            read(name)
    with pytest.raises(ConfigError):
        find_model(name, where="model")
    for kind in ("dataset", "video-r1", "official"):
        spec = SourceSpec.model_validate({"name": "s", "kind": kind, "path": name})
        with pytest.raises(SourceError):
            open_source(spec, base=tmp_path)


def test_a_glob_that_is_none_is_refused(tmp_path: Path) -> None:
    spec = SourceSpec.model_validate({"name": "s", "kind": "dataset", "path": "a**b"})
    with pytest.raises(SourceError, match=r"a\*\*b: cannot be looked at"):
        open_source(spec, base=tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        "!!timestamp x",
        "!!bool x",
        "!!int ''",
        "!!int [1]",
        "!!float x",
        "0x" + "f" * 5000,
        "1" + ":59" * 3000,
        "0b" + "1" * 20000,
    ],
)
def test_values_that_their_type_cannot_have_are_no_yaml(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"r\.yaml"):
        parse_recipe(f"name: x\nmedia: {value}\n", where="r.yaml")
    with pytest.raises(ConfigError, match=r"--set media"):
        parse_set(f"media={value}")
    (tmp_path / "README.md").write_text(f"---\nmedia: {value}\n---\n")
    _, fault = _read_card(tmp_path / "README.md")
    assert fault is not None and fault[0] == "README.md"


def test_a_card_of_a_stranger_is_weighed_before_it_is_read(tmp_path: Path) -> None:
    bomb = "a0: &a0 {k: v}\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    (tmp_path / "README.md").write_text(f"---\n{bomb}---\n")
    found, fault = _read_card(tmp_path / "README.md")
    assert found is None and fault is not None and "more than 20,000 values" in fault[1]


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        ("csv", "{0},b\n1,2\n"),
        ("json", '[{{"{0}": 1}}]'),
        ("json", '{{"{0}": [{{"a": 1}}]}}'),
        ("json", '{{"{0}": {{"a": 1, "b": 1}}, "x": {{"a": 1, "b": 1}}}}'),
    ],
)
def test_long_names_of_columns_do_not_fill_an_error(tmp_path: Path, ending: str, text: str) -> None:
    path = tmp_path / f"pool.{ending}"
    path.write_text(text.format("x" * 100_000))
    source = open_source(SourceSpec(name="s", kind="dataset", path=str(path)), base=tmp_path)
    with pytest.raises(SourceError) as caught:
        list(source.rows())
    assert len(str(caught.value)) < 1000


def test_a_prompt_that_never_ends_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "large.txt").write_bytes(b"=== user ===\n" + b"x" * (1 << 20))
    # the large file first: without the limit, a device would fill the memory before anything fails
    for name in (str(tmp_path / "large.txt"), str(tmp_path), str(tmp_path / "pipe.txt"), "/dev/zero"):
        with pytest.raises(ConfigError, match="no prompt"):
            load_prompt(name)


def test_a_recipe_file_that_never_ends_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 1,000,000 characters"):
        load_grammar_from("/dev/zero")


def load_grammar_from(name: str) -> object:
    """As a recipe given on the command line, which may be a device."""
    from videop2r_data.schemas import load_recipe

    return load_recipe(Path(name))
