"""The map of perception and reasoning: embeddings in two dimensions, and how far apart the two lie."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from videop2r_data.cards.figures.counts import FigureData
from videop2r_data.cards.figures.text import OPENINGS, Pair
from videop2r_data.errors import ConfigError, MissingExtraError, first_line
from videop2r_data.plots import Look, label, new_figure
from videop2r_data.schemas import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Text embeddings by a transformers model in a local folder; nothing is fetched.

MAX_TOKENS = 512
"""Tokens of a text that are read."""
BATCH = 32


def embed(folder: Path, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Mean of the last hidden states over the tokens of each text, at unit length, in float32 on the CPU.

    Args:
        folder: config, tokenizer and safetensors weights; nothing is fetched, and no code in it is run.
        texts: cut at 512 tokens, or at fewer if the model reads fewer.

    Returns:
        Shape [texts, hidden size].

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ConfigError: the folder holds no model that can be loaded.
    """
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError:
        raise MissingExtraError("transformers", "train") from None
    tokenizer, model = _load(folder)
    known = getattr(model.config, "max_position_embeddings", None)
    longest = min(MAX_TOKENS, known) if isinstance(known, int) and known > 2 else MAX_TOKENS
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # like lengths together: less padding
    out = np.zeros((len(texts), 0), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            tokens = tokenizer(
                [texts[i] for i in some],
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            )
            ids, seen = tokens["input_ids"], tokens["attention_mask"]
            hidden = model(input_ids=ids, attention_mask=seen).last_hidden_state.float()
            mask = seen.unsqueeze(-1).float()
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            mean = torch.nn.functional.normalize(mean, dim=-1)
            out = out if start else np.zeros((len(texts), mean.shape[1]), np.float32)
            out[some] = mean.numpy()
    if not np.isfinite(out).all():
        raise ConfigError("the model gives vectors that are not finite", where=str(folder))
    return out


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bar of the weights; a program that wants it has it back afterwards."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    if not folder.is_dir():
        raise ConfigError(
            "no such folder", where=str(folder), hint="name the folder of a downloaded transformers model"
        )
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model = AutoModel.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype="float32"
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ConfigError(
            f"no model that can be loaded: {first_line(error)}",
            where=str(folder),
            hint="it has to hold config.json, a tokenizer and model.safetensors",
        ) from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer, model.eval()


# Texts become vectors, by a local model or by TF-IDF and a truncated SVD. The separation is measured on these
# vectors, never on the map: a projection to two dimensions can tear classes apart or fold them together.

Array = npt.NDArray[Any]

DIMENSIONS = 64
"""Dimensions of the SVD."""
FEATURES = 20_000
"""Words and pairs of words in the TF-IDF at most."""
NEIGHBOURS, MIN_DIST = 15, 0.1
"""UMAP's own defaults."""
LEAST = 20
"""Rows needed for a projection; fewer give noise."""
SILHOUETTE_ROWS = 2_000
"""Rows of the silhouette at most."""


class Separation(Model):
    """How far perception and reasoning lie apart as vectors; chance is 0.5 for both accuracies."""

    silhouette_cosine: float
    """Mean silhouette of the two classes, cosine distance, -1 to 1; 0: no separation."""
    silhouette_rows: int
    """Rows that it was measured on, two texts each."""
    nearest_centroid_accuracy: float
    """Share of the held-out texts nearer (cosine) to the mean of their own class in the other half."""
    linear_probe_accuracy: float
    """Share of the held-out texts that a logistic regression, fitted on the other half, gets right."""
    held_out_rows: int
    """Rows of the held-out half; both texts of a row are in the same half."""


class ProjectionData(FigureData):
    """What the figure shows."""

    title = "Map of perception and reasoning"
    config: str
    rows_with_both: int
    """Rows with both perception and reasoning."""
    rows_sampled: int
    seed: int
    embedding: Literal["model", "tfidf-svd"]
    model: str = ""
    """Name of the folder of the model, or empty."""
    dimensions: int
    """Length of the vectors that the separation was measured on."""
    method: Literal["umap", "pca"]
    settings: dict[str, float | int | str] = Field(default_factory=dict)
    """All other settings that decide the map."""
    openings_removed: list[str] = Field(default_factory=lambda: list(OPENINGS))
    separation: Separation
    rows: list[int]
    """Index of each sampled row in its config, in reading order."""
    perception: list[tuple[float, float]]
    reasoning: list[tuple[float, float]]

    def caption(self) -> str:
        """A few sentences for the card."""
        s = self.separation
        return (
            f"Perception and reasoning of {self.rows_sampled:,} of {self.rows_with_both:,} rows: "
            f"{_how(self)}. Measured on the vectors, not on the picture: mean silhouette (cosine) "
            f"{s.silhouette_cosine:.2f}; on {s.held_out_rows:,} held-out rows a nearest-centroid classifier "
            f"tells the two apart with an accuracy of {100 * s.nearest_centroid_accuracy:.1f} %, a linear "
            f"probe with {100 * s.linear_probe_accuracy:.1f} % (chance: 50 %). "
            "The opening words that the prompt asks for were removed first."
        )

    def draw(self, look: Look) -> Figure:
        """A scatter of both, and the figures of separation beside it."""
        rows = f"{self.rows_sampled:,} of {self.rows_with_both:,} rows of {self.config}"
        told = f"{rows}, two texts each; {_how(self)}"
        figure = new_figure(self.title, told, look, high=3.9)
        axes, side = figure.subplots(1, 2, width_ratios=[2.35, 1])
        _points(axes, self, look)
        _side(side, self, look)
        return figure


def project(
    config: str, pairs: Sequence[Pair], *, seen: int, seed: int = 0, model: Path | None = None
) -> ProjectionData:
    """Embed a sample of rows, measure the separation of perception and reasoning, and map both to a plane.

    Args:
        config: whose rows they are.
        pairs: at least `LEAST` rows.
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
    """Raise `MissingExtraError` if scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise MissingExtraError("scikit-learn", "report") from None


def need_umap() -> Any:
    """The module `umap`, or `MissingExtraError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an optional part that is not used here
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
    """Coordinates along the two directions of largest variance, shape [texts, 2].

    The sign of a principal direction is arbitrary: its largest entry is made positive, so that a figure does
    not depend on the linear algebra library.
    """
    centred = vectors - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    axes = directions[:, ::-1][:, :2]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])
    plane: Array = centred @ (axes * np.where(signs == 0, 1, signs))
    return plane


def _umap(vectors: Array, seed: int) -> Array:
    umap = need_umap()
    # the last bits of a model's output differ from run to run, and UMAP amplifies them
    vectors = np.round(vectors, 4)
    # UMAP's spectral start places disconnected components by chance, and the two classes often are such
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
        perception: vectors, shape [rows, dimensions].
        reasoning: vectors of the same rows, the same shape.
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

    For each point (b - a) / max(a, b), with a the mean distance to the others of its class and b the mean
    distance to the other class [Rousseeuw 1987]. The cosine distance of unit vectors is linear in each of
    them, so sums of vectors replace the loop over all pairs. A point equal to all others counts 0.
    """
    total = 0.0
    for own, other in ((left, right), (right, left)):
        within = (len(own) - own @ own.sum(axis=0) - (1 - (own * own).sum(axis=1))) / max(1, len(own) - 1)
        across = 1 - own @ other.mean(axis=0)
        largest = np.maximum(within, across)
        total += float(np.where(largest > 1e-12, (across - within) / np.maximum(largest, 1e-12), 0.0).sum())
    return total / (len(left) + len(right))


# The figure: a point per text, and the measured separation beside it.


def _how(data: ProjectionData) -> str:
    vectors = f"embeddings of {label(data.model, 40)}" if data.embedding == "model" else "TF-IDF and SVD"
    plane = "UMAP" if data.method == "umap" else "first two principal axes"
    return f"{vectors} ({data.dimensions} dimensions), {plane}"


def _points(axes: Axes, data: ProjectionData, look: Look) -> None:
    axes.set_facecolor(look.paper)
    for spine in axes.spines.values():
        spine.set(color=look.grid)
    axes.set_xticks([])
    axes.set_yticks([])
    size = 9 if data.rows_sampled > 1200 else 14 if data.rows_sampled > 300 else 22
    both = [
        (data.perception, look.perception, "o", "perception"),
        (data.reasoning, look.reasoning, "D", "reasoning"),
    ]
    points = np.array(data.perception + data.reasoning)
    colours = np.repeat([colour for _, colour, _, _ in both], data.rows_sampled)
    # drawn in a mixed order, in a few layers: the last class must not hide the first
    order = np.random.default_rng(0).permutation(len(points))
    for part in np.array_split(order, 12):
        for place, (_, _, mark, _) in enumerate(both):
            chosen = part[(part >= data.rows_sampled) == bool(place)]
            axes.scatter(
                points[chosen, 0], points[chosen, 1], s=size * (0.8 if mark == "D" else 1), c=colours[chosen],
                marker=mark, alpha=0.62, linewidths=0,
            )  # fmt: skip
    for _, colour, mark, name in both:
        axes.scatter([], [], s=34, c=colour, marker=mark, label=name)
    axes.margins(0.04)


def _side(axes: Axes, data: ProjectionData, look: Look) -> None:
    s = data.separation
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.text(0, 1, "separation", fontsize=9, fontweight="bold", color=look.ink, va="top")
    lines = (
        (f"{100 * s.linear_probe_accuracy:.1f} %", "linear probe,\nheld-out accuracy"),
        (f"{100 * s.nearest_centroid_accuracy:.1f} %", "nearest centroid,\nheld-out accuracy"),
        (f"{s.silhouette_cosine:.2f}", "mean silhouette,\ncosine, from −1 to 1"),
    )
    for place, (number, words) in enumerate(lines):
        top = 0.9 - 0.2 * place
        axes.text(0, top, number, fontsize=14, color=look.ink, va="top")
        axes.text(0, top - 0.075, words, fontsize=7.8, color=look.muted, va="top", linespacing=1.15)
    notes = f"{s.held_out_rows:,} rows held out, chance 50 %;\nmeasured on the vectors,\nnot on the picture"
    axes.text(0, 0.27, notes, fontsize=7.4, color=look.muted, va="top", linespacing=1.2)
    handles, names = axes.figure.axes[0].get_legend_handles_labels()
    axes.legend(
        handles, names, loc="lower left", bbox_to_anchor=(-0.06, -0.02), frameon=False, fontsize=8.5,
        labelcolor=look.ink, handletextpad=0.2, borderaxespad=0,
    )  # fmt: skip
