"""Embeddings of perception and reasoning in two dimensions, and how far apart the two lie.

Texts become vectors by a local model or by TF-IDF and a truncated SVD. The separation is measured on these
vectors, never on the picture: a projection to two dimensions can tear apart or fold together.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from videop2r_data.cards.stats_gather import OPENINGS, Pair
from videop2r_data.errors import MissingExtraError
from videop2r_data.schemas import Model

Array = npt.NDArray[Any]

DIMENSIONS = 64
"""Of the SVD."""
FEATURES = 20_000
"""Words and pairs of words in the TF-IDF."""
NEIGHBOURS, MIN_DIST = 15, 0.1
"""Of UMAP: its own defaults."""
LEAST = 20
"""Rows below which nothing is projected: the figures would be noise."""
SILHOUETTE_ROWS = 2_000
"""The silhouette compares all with all: so many rows at most."""


class Separation(Model):
    """How well P and R are told apart from their vectors; 0.5 is chance for both accuracies."""

    silhouette_cosine: float
    """Mean silhouette of the two classes, cosine distance, -1 to 1; 0 is no separation."""
    silhouette_rows: int
    """Rows that it was measured on, two texts each."""
    nearest_centroid_accuracy: float
    """Share of the held-out texts nearer (cosine) to the mean of their own class in the other half."""
    linear_probe_accuracy: float
    """Share of the held-out texts that a logistic regression, fitted on the other half, gets right."""
    held_out_rows: int
    """Rows of the held-out half: P and R of a row are always in the same half."""


class ProjectionData(Model):
    """What the figure shows."""

    config: str
    rows_with_both: int
    """Rows that have P and R."""
    rows_sampled: int
    seed: int
    embedding: Literal["model", "tfidf-svd"]
    model: str = ""
    """Name of the folder of the model, or empty."""
    dimensions: int
    """Of the vectors that the separation was measured on."""
    method: Literal["umap", "pca"]
    settings: dict[str, float | int | str] = Field(default_factory=dict)
    """Everything else that decides the picture."""
    openings_removed: list[str] = Field(default_factory=lambda: list(OPENINGS))
    separation: Separation
    rows: list[int]
    """Index of each sampled row in its config, in reading order."""
    perception: list[tuple[float, float]]
    reasoning: list[tuple[float, float]]


def project(
    config: str, pairs: Sequence[Pair], *, seen: int, seed: int = 0, model: Path | None = None
) -> ProjectionData:
    """Embed a sample of rows, measure the separation of P and R, and lay them out on a plane.

    Args:
        config: whose rows they are.
        pairs: at least 20 rows.
        seen: rows that the sample was drawn from.
        seed: fixes the split, the SVD and UMAP.
        model: folder of a transformers model: mean-pooled last hidden states, and UMAP over them. Without
            one: TF-IDF and a truncated SVD, and of the SVD the two directions of largest variance.

    Raises:
        MissingExtraError: scikit-learn, or with a model transformers or umap, is not installed.
        ConfigError: the folder holds no model that can be loaded.
        ValueError: fewer than 20 rows.
    """
    if len(pairs) < LEAST:
        raise ValueError(f"{len(pairs)} rows; at least {LEAST} are needed")
    need_sklearn()
    texts = [pair.perception for pair in pairs] + [pair.reasoning for pair in pairs]
    settings: dict[str, float | int | str]
    if model is None:
        vectors, settings = tfidf_svd(texts, seed)
        plane = _pca(vectors)
    else:
        need_umap()
        from videop2r_data.cards.projection_model import MAX_TOKENS, embed

        vectors = embed(model, texts)
        plane = _umap(vectors, seed)
        settings = {
            "pooling": "mean of the last hidden states", "max_tokens": MAX_TOKENS, "n_neighbors": NEIGHBOURS,
            "min_dist": MIN_DIST, "metric": "cosine", "init": "first two principal axes",
        }  # fmt: skip
    points = [(round(float(x), 4), round(float(y), 4)) for x, y in plane]
    return ProjectionData(
        config=config,
        rows_with_both=seen,
        rows_sampled=len(pairs),
        seed=seed,
        embedding="model" if model else "tfidf-svd",
        model=model.resolve().name if model else "",
        dimensions=vectors.shape[1],
        method="umap" if model else "pca",
        settings=settings,
        separation=separation(vectors[: len(pairs)], vectors[len(pairs) :], seed),
        rows=[pair.row for pair in pairs],
        perception=points[: len(pairs)],
        reasoning=points[len(pairs) :],
    )


def need_sklearn() -> None:
    """Refuse early.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise MissingExtraError("scikit-learn", "report") from None


def need_umap() -> Any:
    """The module `umap`; it warns of an optional part that is not used here.

    Raises:
        MissingExtraError: umap-learn is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import umap
    except ImportError:
        raise MissingExtraError("umap-learn", "report") from None
    return umap


def tfidf_svd(texts: Sequence[str], seed: int) -> tuple[Array, dict[str, float | int | str]]:
    """Vectors of unit length, shape [texts, at most 64], and how they were made."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    tfidf = TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), max_features=FEATURES, dtype=np.float32,
        token_pattern=r"(?u)\b\w+\b",  # noqa: S106 (a pattern of words, no secret)
    )  # fmt: skip
    try:
        sparse = tfidf.fit_transform(texts)
    except ValueError:  # not one word in all texts
        return np.zeros((len(texts), 2), np.float32), {"features": 0}
    size = max(2, min(DIMENSIONS, sparse.shape[1] - 1, len(texts) - 1))
    if sparse.shape[1] <= 2:
        dense = np.zeros((len(texts), 2), np.float32)
        dense[:, : sparse.shape[1]] = sparse.toarray()
        return dense, {"features": sparse.shape[1]}
    svd = TruncatedSVD(size, random_state=seed)
    with np.errstate(invalid="ignore", divide="ignore"):  # the share of an empty variance, which is not read
        vectors = svd.fit_transform(sparse)
    return unit(vectors), {"features": sparse.shape[1], "ngrams": "1 and 2 words", "tf": "sublinear"}


def unit(vectors: Array) -> Array:
    """Vectors of length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _pca(vectors: Array) -> Array:
    """The two directions of largest variance; each points to where its largest entry is positive."""
    centred = vectors - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    axes = directions[:, ::-1][:, :2]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])
    plane: Array = centred @ (axes * np.where(signs == 0, 1, signs))
    return plane


def _umap(vectors: Array, seed: int) -> Array:
    umap = need_umap()
    # the last bits of a model differ from run to run, and UMAP makes much of little
    vectors = np.round(vectors, 4)
    # its own beginning, a spectral layout, falls into parts when P and R do, and these are laid out by chance
    start = _pca(vectors.astype(np.float64))
    start = np.round(start * (10 / max(float(np.abs(start).max()), 1e-9)), 3).astype(np.float32)
    reducer = umap.UMAP(
        n_neighbors=min(NEIGHBOURS, len(vectors) - 1), min_dist=MIN_DIST, metric="cosine", random_state=seed,
        n_jobs=1, init=start,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of graphs in several pieces, and of its own dependencies
        plane: Array = reducer.fit_transform(vectors)
    centred: Array = plane - plane.mean(axis=0)
    return centred


def separation(perception: Array, reasoning: Array, seed: int) -> Separation:
    """Measure how far apart two classes of vectors lie.

    Args:
        perception: P, shape [rows, dimensions].
        reasoning: R of the same rows, the same shape.
        seed: fixes which half of the rows is held out.
    """
    from sklearn.linear_model import LogisticRegression

    rows = len(perception)
    order = np.random.default_rng(seed).permutation(rows)
    held, fit = order[: rows // 2], order[rows // 2 :]
    p, r = unit(perception.astype(np.float64)), unit(reasoning.astype(np.float64))
    towards = unit(np.stack([p[fit].mean(axis=0), r[fit].mean(axis=0)]))
    right_p = p[held] @ towards[0] > p[held] @ towards[1]
    right_r = r[held] @ towards[1] > r[held] @ towards[0]
    probe = LogisticRegression(max_iter=2000)
    probe.fit(np.concatenate([p[fit], r[fit]]), np.repeat([0, 1], len(fit)))
    probed = probe.score(np.concatenate([p[held], r[held]]), np.repeat([0, 1], len(held)))
    few = order[:SILHOUETTE_ROWS]
    return Separation(
        silhouette_cosine=round(silhouette(p[few], r[few]), 4),
        silhouette_rows=len(few),
        nearest_centroid_accuracy=round(float(np.concatenate([right_p, right_r]).mean()), 4),
        linear_probe_accuracy=round(float(probed), 4),
        held_out_rows=len(held),
    )


def silhouette(left: Array, right: Array) -> float:
    """Mean silhouette of two classes of unit vectors under cosine distance, -1 to 1.

    For each point (b - a) / max(a, b), with a the mean distance to the others of its class and b that to
    the other class [Rousseeuw 1987]. Because the distance is linear in the vectors, sums take the place of
    all pairs. A point equal to all others counts 0.
    """
    total = 0.0
    for own, other in ((left, right), (right, left)):
        within = (len(own) - own @ own.sum(axis=0) - (1 - (own * own).sum(axis=1))) / max(1, len(own) - 1)
        across = 1 - own @ other.mean(axis=0)
        largest = np.maximum(within, across)
        total += float(np.where(largest > 1e-12, (across - within) / np.maximum(largest, 1e-12), 0.0).sum())
    return total / (len(left) + len(right))
