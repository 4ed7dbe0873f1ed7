"""Separation figures against numbers worked out by hand; the projection is the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from videop2r_data.cards.figures.projection import (
    LEAST,
    ProjectionData,
    project,
    separation,
    silhouette,
    tfidf_svd,
    unit,
)
from videop2r_data.cards.figures.text import Pair


def pairs(count: int) -> list[Pair]:
    """P names things, R reasons about them: two vocabularies that share a few words."""
    things = ["ball", "cube", "door", "tree", "car"]
    return [
        Pair(
            n,
            f"a red {things[n % 5]} lies near the {things[n * 3 % 5]}",
            f"so it must be {things[n % 5]} hence {n % 7}",
        )
        for n in range(count)
    ]


def test_silhouette_by_hand() -> None:
    # two classes of two equal points each, at a right angle: within 0, across 1: silhouette 1
    left, right = np.array([[1.0, 0], [1, 0]]), np.array([[0, 1.0], [0, 1]])
    assert silhouette(left, right) == pytest.approx(1)
    assert silhouette(left, left) == 0
    # the classes share their two points: within 1 (one other point, at a right angle), across 1/2
    mixed = np.array([[1.0, 0], [0, 1]])
    assert silhouette(mixed, mixed) == pytest.approx(-0.5)


def test_silhouette_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(3)
    left, right = unit(rng.normal(size=(9, 4)) + 0.5), unit(rng.normal(size=(9, 4)))
    total = 0.0
    for own, other in ((left, right), (right, left)):
        for at, point in enumerate(own):
            a = np.mean([1 - point @ q for k, q in enumerate(own) if k != at])
            b = np.mean([1 - point @ q for q in other])
            total += (b - a) / max(a, b)
    assert silhouette(left, right) == pytest.approx(total / 18)


def test_separation_of_what_is_apart_and_of_noise() -> None:
    rng = np.random.default_rng(0)
    p, r = rng.normal(size=(2, 400, 8))
    p[:, 0] += 9
    r[:, 1] += 9
    apart = separation(p, r, seed=0)
    assert apart.nearest_centroid_accuracy == apart.linear_probe_accuracy == 1.0
    assert apart.silhouette_cosine > 0.5 and apart.held_out_rows == 200
    noise = separation(rng.normal(size=(400, 8)), rng.normal(size=(400, 8)), seed=0)
    # 400 held-out texts, chance: standard deviation 0.025
    assert abs(noise.linear_probe_accuracy - 0.5) < 0.1 and abs(noise.nearest_centroid_accuracy - 0.5) < 0.1
    assert abs(noise.silhouette_cosine) < 0.02


def test_a_row_is_on_one_side_only() -> None:
    # P and R of a row are equal and every row is unlike all others: a split by texts would find half of them
    # in the other half and be wrong on all; by rows there is nothing to learn but one guess for both
    same = np.eye(40)
    found = separation(same, same, seed=0)
    assert found.linear_probe_accuracy == 0.5


def test_projection_by_tfidf_and_svd() -> None:
    found = project("sft", pairs(60), seen=90)
    assert (found.embedding, found.method, found.rows_sampled, found.rows_with_both) == (
        "tfidf-svd",
        "pca",
        60,
        90,
    )
    assert found.separation.linear_probe_accuracy == 1.0
    assert len(found.perception) == len(found.reasoning) == len(found.rows) == 60
    assert found.dimensions <= 64
    assert ProjectionData.model_validate_json(found.model_dump_json()) == found


def test_the_same_seed_gives_the_same_projection() -> None:
    assert project("sft", pairs(30), seen=30) == project("sft", pairs(30), seen=30)


def test_the_plane_is_that_of_the_largest_variance() -> None:
    found = project("sft", pairs(40), seen=40)
    points = np.array(found.perception + found.reasoning)
    assert abs(points.mean(axis=0)).max() < 1e-3
    spread = points.var(axis=0)
    assert spread[0] >= spread[1] > 0


@pytest.mark.parametrize("text", ["", "?", "word", "one two"])
def test_texts_without_variety(text: str) -> None:
    vectors, _ = tfidf_svd([text] * 50, 0)
    assert vectors.shape[0] == 50 and np.isfinite(vectors).all()
    same = [Pair(n, text, text) for n in range(25)]
    found = project("sft", same, seen=25)
    assert found.separation.silhouette_cosine == 0
    assert found.separation.linear_probe_accuracy == 0.5


def test_too_few_rows() -> None:
    with pytest.raises(ValueError, match="at least 20"):
        project("sft", pairs(LEAST - 1), seen=LEAST - 1)
