"""What `benchmarks.gpu_all` counts, how it puts figures together, and that no part takes another along."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import gpu_all
from benchmarks._gpu_flops import Machine, Pass, Sizes, mfu
from benchmarks._gpu_probe import Meter, measured, read_pass
from benchmarks._gpu_tables import page
from benchmarks.gpu_step import summary
from tests.trainer.model.batches import batch_of, clip, random_completions, tiny_policy
from videop2r_data.trainer.model import TrainModel

SMALL = Sizes(
    token=100,
    head=10,
    pair=4,
    patch=7,
    merged=5,
    patch_pair=2,
    windowed=3,
    full=1,
    window=4,
    merge=2,
)


def test_the_arithmetic_of_a_pass_is_worked_out_by_hand() -> None:
    done = Pass([3], [2, 1], [(2, 6, 4)])
    # tokens 3 + 2 + 1 = 6; drawn 3; pairs: prompt 6, completions 2*3 + 3 and 1*3 + 1 = 13, together 19
    assert SMALL.language(done) == 2 * (6 * 100 + 3 * 10 + 19 * 4)
    # 48 patches, 12 merged; windows of 4 x 4 and 2 x 4 patches in each of 2 frames: 16^2 + 8^2 = 320 pairs,
    # three layers; the full layer has 24^2 = 576
    assert SMALL.vision(done) == 2 * (48 * 7 + 12 * 5 + 2 * 2 * (3 * 320 + 576))
    assert SMALL.forward(done) == 1412 + 2 * (336 + 60 + 6144)
    assert SMALL.update(done, adapters=False) == 3 * SMALL.forward(done)
    assert SMALL.update(done, adapters=True) == 2 * SMALL.language(done) + SMALL.vision(done)


def test_sizes_of_the_real_shape_are_its_weights() -> None:
    text = SimpleNamespace(
        hidden_size=2048,
        num_attention_heads=16,
        num_key_value_heads=2,
        num_hidden_layers=36,
        intermediate_size=11008,
        vocab_size=151936,
    )
    vision = SimpleNamespace(
        hidden_size=1280,
        depth=32,
        intermediate_size=3420,
        out_hidden_size=2048,
        in_channels=3,
        temporal_patch_size=2,
        patch_size=14,
        spatial_merge_size=2,
        window_size=112,
        fullatt_block_indexes=[7, 15, 23, 31],
    )
    sizes = Sizes.of(SimpleNamespace(text_config=text, vision_config=vision))
    # a layer of 3B: q and o 2048 x 2048, k and v 2048 x 256, three matrices of 2048 x 11008
    assert sizes.token == 36 * (2 * 2048**2 + 2 * 2048 * 256 + 3 * 2048 * 11008)
    assert sizes.head == 311_164_928
    assert sizes.pair == 36 * 2 * 2048
    assert sizes.window == 8 and (sizes.windowed, sizes.full) == (28, 4)
    # 22 x 22 patches of a frame of 308 pixels: windows of 8, 8 and 6
    assert sizes._squares(22) == 164


def test_the_matrix_products_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    policy = tiny_policy()
    prompts = batch_of(policy.processor, [clip(0)])
    inputs = prompts.with_completions([random_completions(1)[0]], 1)
    sizes = Sizes.of(policy.net.config)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        TrainModel(policy.net, share_prompts=False).eval()(inputs)
    counts = counter.get_flop_counts()["Global"]
    seen = sum(counts.get(kind, 0) for kind in (torch.ops.aten.mm, torch.ops.aten.addmm))
    plain = Sizes(**{name: getattr(sizes, name) for name in Sizes.__slots__} | {"pair": 0, "patch_pair": 0})
    assert seen == plain.forward(read_pass(inputs))


def test_passes_are_noted_with_and_without_gradient() -> None:
    policy = tiny_policy()
    inputs = batch_of(policy.processor, [clip(0)]).with_completions(random_completions(2), 2)
    meter = Meter(Sizes.of(policy.net.config), adapters=False)
    with measured(meter):
        model = TrainModel(policy.net)
        model(inputs)
        with torch.no_grad():
            model(inputs)
    assert meter.now["update_flops"] == 3 * meter.now["reference_flops"] > 0
    assert {"start", "update", "reference"} == set(meter.memory.peaks)
    assert all(peak > 0 for peak in meter.memory.peaks.values())


MACHINE = Machine("a card", cuda=True, memory_gib=80.0, peak=10.0, peak_from="data sheet", measured=8.0)


def test_a_step_is_summed_up_without_the_first() -> None:
    times = {"step": 10.0, "rollout": 6.0, "logps": 1.0, "judge": 0.5, "update": 2.0}
    step = {
        "times": times,
        "tokens_per_s": 100.0,
        "decode_s": 4.0,
        "prefill_s": 1.0,
        "rollout_flops": 1e13,
        "reference_flops": 1e13,
        "update_flops": 3e13,
        "prompts": 2,
        "prompt_tokens": 32,
        "completions": 4,
        "completion_tokens": 64,
    }
    slow = {**step, "times": {name: 9 * spent for name, spent in times.items()}}
    found = summary(
        {"steps": [slow, step, step], "peak_bytes": {"start": 1 << 30, "update": 4 << 30}, "top": []}, MACHINE
    )
    assert found["step_s"] == 10.0 and found["peak_gib"] == 3.0  # less what was held at the start
    assert (found["prompt_tokens"], found["completion_tokens"]) == (16, 16)
    assert {name: found["share"][name] for name in ("decode", "prefill", "rollout", "update")} == {
        "decode": 0.4,
        "prefill": 0.1,
        "rollout": 0.1,
        "update": 0.2,
    }
    # 5e13 FLOPs in 10 s of 10 TFLOP/s; 3e13 in 2 s are more than there is, and are shown as they are
    assert found["mfu"]["step"] == mfu(5e13, 10.0, 10.0) == 0.5
    assert found["mfu"]["update"] == 1.5


def python(code: str) -> tuple[str, ...]:
    """Words behind `python -m` that run code."""
    return ("timeit", "-n1", "-r1", code)


@pytest.mark.parametrize(
    ("code", "limit", "status"),
    [
        ("print('{\"a\": 1}')", 30, "done"),
        ("print('{\"a\": 1}'); 1 / 0", 30, "failed"),
        ("print('{\"a\": 1}', flush=True); import time; time.sleep(60)", 6, "out of time"),
        ("pass", 1, "not reached"),
    ],
)
def test_a_part_ends_in_one_of_four_ways(code: str, limit: float, status: str) -> None:
    told = gpu_all.run(gpu_all.Part("part", python(code), limit), limit)
    assert told["status"] == status
    assert told["results"] == ([] if status == "not reached" else [{"a": 1}])
    assert ("ZeroDivisionError" in told.get("said", "")) == (status == "failed")


def test_silence_is_no_success() -> None:
    told = gpu_all.run(gpu_all.Part("part", ("this",), 30), 30)
    assert told["status"] == "failed"


def test_figures_of_two_versions_do_not_mix(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    found = gpu_all.begin(out, quick=True)
    gpu_all.write(out, found)
    assert gpu_all.begin(out, quick=True) == found
    with pytest.raises(SystemExit, match="of another quick"):
        gpu_all.begin(out, quick=False)
    out.write_text(json.dumps(found | {"commit": "other"}))
    with pytest.raises(SystemExit, match="of another commit"):
        gpu_all.begin(out, quick=True)


def step_of(shape: str, seconds: float, **more: Any) -> dict[str, Any]:
    """A line of `gpu_step`."""
    return {
        "stage": "rl",
        "shape": shape,
        "lora": 64,
        "step_s": seconds,
        "tokens_per_s": 1.0,
        "share": {"decode": 0.5},
        "mfu": {"step": 0.1, "update": None},
        "peaks_gib": {"update": 30.0},
        "peak_gib": 30.0,
        **more,
    }


def test_the_slowest_shape_is_profiled(tmp_path: Path) -> None:
    assert gpu_all.slowest({}) == ("3b", ["--lora", "64"])
    done = {name: {"results": [step_of(name[:2], s)]} for name, s in (("3b-lora", 9.0), ("7b-lora", 30.0))}
    words = gpu_all.parts(tmp_path, tmp_path / "gpu.json", {"parts": done}, quick=False)[-1].words
    assert words[words.index("--shape") + 1] == "7b"


def test_all_parts_fit_into_half_an_hour_and_come_in_order(tmp_path: Path) -> None:
    made = gpu_all.parts(tmp_path, tmp_path / "gpu.json", {}, quick=False)
    assert [part.name for part in made] == [
        "machine",
        "quick",
        "correct",
        "3b-lora",
        "7b-lora",
        "3b-full",
        "miniature",
        "profile",
    ]
    assert sum(part.limit_s for part in made) <= 33 * 60  # their limits; all of them are not reached at once


def test_the_page_shows_what_ran_and_what_is_missing() -> None:
    ended = {"status": "done", "seconds": 3.0, "command": "python -m it"}
    check = {"check": "decode", "value": 0.2, "limit": 0.1, "holds": False, "what": "mean"}
    found = {
        "commit": "abc",
        "date": "2026-01-01",
        "quick": False,
        "parts": {
            "correct": ended | {"results": [{"parameters": 3}, check]},
            "3b-lora": ended | {"results": [step_of("3b", 12.0, plan_gib=29.5)]},
            "7b-lora": ended | {"results": [step_of("7b", 20.0)]},
            "3b-full": ended | {"status": "out of time", "results": []},
        },
    }
    text = page(found)
    assert "| 3b-full | out of time | 3 | `python -m it` |" in text
    assert "| decode | 0.2 | 0.1 | **no** | mean |" in text
    assert "| 3b-lora | rl | - | - | - | 30 | 30 | 29.5 |" in text
    assert "| 7b-lora | rl | - | - | - | 30 | 30 | not available |" in text
    assert "| 3b-lora | rl | 12 | 1 | 50.0% | 0.0% |" in text
