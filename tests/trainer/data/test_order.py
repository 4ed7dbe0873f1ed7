"""Which examples make up which step."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.data.parts import SMALL, example, stream_spec
from videop2r_data.errors import ConfigError
from videop2r_data.trainer.data.examples import ENDLESS, DemoStream
from videop2r_data.trainer.data.order import Order, estimated_tokens
from videop2r_data.trainer.settings.parts import DataSpec

sizes = st.integers(1, 60)


@st.composite
def orders(draw: st.DrawFn) -> dict[str, Any]:
    world = draw(st.sampled_from([1, 2, 4]))
    batch = world * draw(st.integers(1, 4))
    count = draw(st.integers(batch, 60))
    return {
        "count": count,
        "batch": batch,
        "world_size": world,
        "seed": draw(st.integers(0, 3)),
        "tail": draw(st.sampled_from(["drop", "carry"])),
        "shuffle": draw(st.booleans()),
        "bucket": draw(st.sampled_from([0, 1, 3])),
        "lengths": draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)),
    }


@given(orders(), st.integers(0, 20))
@settings(deadline=None)
def test_the_shares_of_all_processes_are_the_global_batch_of_one(
    settings_: dict[str, Any], step: int
) -> None:
    world = settings_.pop("world_size")
    alone = Order(**settings_)
    shares = [Order(**settings_, rank=r, world_size=world).batch(step) for r in range(world)]
    assert [i for share in shares for i in share] == alone.batch(step) == alone.global_batch(step)
    assert {len(share) for share in shares} == {settings_["batch"] // world}


@given(orders())
@settings(deadline=None)
def test_an_epoch_has_every_example_once(settings_: dict[str, Any]) -> None:
    settings_.pop("world_size")
    order, count, batch = Order(**settings_), settings_["count"], settings_["batch"]
    epochs = 3
    if settings_["tail"] == "drop":
        steps = order.steps_per_epoch
        for epoch in range(epochs):
            seen = [i for s in range(epoch * steps, (epoch + 1) * steps) for i in order.batch(s)]
            assert len(seen) == len(set(seen)) == count - count % batch
    else:
        seen = [i for s in range(-(-epochs * count // batch)) for i in order.batch(s)]
        for epoch in range(epochs):
            assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


@given(orders(), st.lists(st.integers(0, 30), min_size=1, max_size=6))
@settings(deadline=None)
def test_a_step_is_the_same_in_whatever_order_it_is_asked(
    settings_: dict[str, Any], steps: list[int]
) -> None:
    settings_.pop("world_size")
    jumping, walking = Order(**settings_), Order(**settings_)
    walked = [walking.batch(s) for s in range(31)]
    assert [jumping.batch(s) for s in steps] == [walked[s] for s in steps]


def splitmix64(state: int) -> int:
    z = state % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_seeds_and_epochs_give_other_orders_and_these_never_change() -> None:
    order = Order(10, batch=5, seed=0)
    first = [order.batch(step) for step in range(4)]
    assert first[:2] != first[2:] and [Order(10, batch=5, seed=1).batch(s) for s in range(4)] != first
    # a resumed run relies on it: splitmix64 [Steele et al. 2014] in plain integers, started from a hash
    name = hashlib.blake2b(b"0/order/1", digest_size=8).digest()
    draws = [splitmix64(int.from_bytes(name, "big") + i * 0x9E3779B97F4A7C15) for i in range(1, 11)]
    assert first[2] + first[3] == sorted(range(10), key=draws.__getitem__)


def test_every_place_is_as_likely() -> None:
    places = Counter(Order(4, batch=4, seed=seed).batch(0).index(0) for seed in range(4000))
    assert all(850 < places[place] < 1150 for place in range(4))  # 1000 each, standard deviation 27


def test_buckets_put_equal_lengths_together_and_shuffle_the_batches() -> None:
    lengths = [i % 8 for i in range(64)]
    order = Order(64, batch=8, seed=0, lengths=lengths, bucket=8)
    batches = [[lengths[i] for i in order.batch(step)] for step in range(8)]
    assert all(len(set(batch)) == 1 for batch in batches)
    assert [batch[0] for batch in batches] != sorted(batch[0] for batch in batches)
    loose = Order(64, batch=8, seed=0, lengths=lengths)  # bucket=0: lengths mean nothing
    assert max(len({lengths[i] for i in loose.batch(step)}) for step in range(8)) > 2


def test_the_last_batch_of_an_epoch_is_left_out_or_completed() -> None:
    dropped = Order(7, batch=3, seed=0, shuffle=False)
    assert [dropped.batch(s) for s in range(3)] == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
    assert (dropped.steps_per_epoch, dropped.epoch(3)) == (2, 1.5)
    carried = Order(7, batch=3, seed=0, shuffle=False, tail="carry")
    assert [carried.batch(s) for s in range(4)] == [[0, 1, 2], [3, 4, 5], [6, 0, 1], [2, 3, 4]]
    assert (carried.steps_per_epoch, carried.epoch(7)) == (3, 3.0)
    tiny = Order(2, batch=5, seed=0, shuffle=False, tail="carry")
    assert tiny.batch(0) == [0, 1, 0, 1, 0]


def test_a_stream_is_taken_as_it_comes() -> None:
    stream = DemoStream(stream_spec(config="rl"))
    order = Order.of(stream.spec, stream, batch=4, seed=0, rank=1, world_size=2)
    assert len(stream) == ENDLESS and order.batch(10**9) == [4 * 10**9 + 2, 4 * 10**9 + 3]
    steps = [[stream[i] for i in order.batch(step)] for step in (3, 4)]
    assert [[e.sample_id.rpartition("/")[2] for e in step] for step in steps] == [["14", "15"], ["18", "19"]]
    assert order.epoch(10**6) < 1e-9


def test_lengths_rank_text_below_pictures_below_clips() -> None:
    text, picture, clip = (estimated_tokens(example(kind), SMALL) for kind in ("text", "image", "video"))
    assert text < picture < clip == text + 4 * 784 // 64
    told = estimated_tokens(example(target="x" * 400), SMALL)
    assert told == text + 100
    asked = [example(kind, f"{i}") for i, kind in enumerate(["video", "text"] * 8)]
    order = Order.of(DataSpec(source="x", bucket=4, media=SMALL), asked, batch=4, seed=0)
    for step in range(4):
        assert len({asked[i].data_type for i in order.batch(step)}) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"batch": 3, "world_size": 2}, "3 prompts cannot be shared by 2"),
        ({"batch": 0}, "0 prompts"),
        ({"batch": 11}, "10 examples fill no batch of 11"),
        ({"count": 0, "batch": 1, "tail": "carry"}, "0 examples"),
    ],
)
def test_what_cannot_be_planned_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Order(**({"count": 10, "seed": 0} | more))
