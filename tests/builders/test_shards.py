"""Shares of a pool: together everything, apart nothing twice."""

from __future__ import annotations

import pytest

from videop2r_data.builders.workspace import Shard
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import BadRow, DataType, ProblemType, RejectReason, Sample


def sample(i: int, path: str = "") -> Sample:
    return Sample(
        sample_id=f"s/{i}",
        problem_id=str(i),
        problem=f"What is {i}?",
        problem_type=ProblemType.NUMERICAL,
        data_type=DataType.IMAGE if path else DataType.TEXT,
        solution="<answer>1</answer>",
        path=path,
        source="s",
        row=i,
    )


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_row_belongs_to_one_share_in_pool_order(count: int) -> None:
    bad = BadRow(source="s", row=5, reason=RejectReason.BAD_ROW, detail="?")
    pool: list[Sample | BadRow] = [
        *(sample(i) for i in range(5)),
        bad,
        *(sample(i, f"{i // 3}.png") for i in range(6, 60)),
    ]
    shares = [list(filter(Shard(i + 1, count).owns, pool)) for i in range(count)]
    assert sum(map(len, shares)) == len(pool)
    assert sorted(x.row for s in shares for x in s) == [x.row for x in pool]
    assert all([x.row for x in s] == sorted(x.row for x in s) for s in shares)
    assert bad in shares[0]
    assert sum(map(bool, shares)) >= min(count, 4), "the work is spread"


def test_questions_about_one_file_and_equal_questions_meet() -> None:
    for i in range(20):
        pair = sample(i, "clip.png"), sample(i + 100, "clip.png")
        assert {Shard(k, 4).owns(pair[0]) for k in range(1, 5)} == {True, False}
        assert all(Shard(k, 4).owns(pair[0]) == Shard(k, 4).owns(pair[1]) for k in range(1, 5))
    twins = sample(1), sample(2).model_copy(update={"problem": "What is 1?"})
    assert all(Shard(k, 4).owns(twins[0]) == Shard(k, 4).owns(twins[1]) for k in range(1, 5))


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "-1/4", "a/b", "1/4/2", "1.0/4"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--shard 1/8"):
        Shard.parse(text)
    assert Shard.parse(" 3/4 ") == Shard(3, 4)
