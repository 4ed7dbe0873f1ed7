"""The card of a trained model: made from the files of its run, so that no number in it can be wrong."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from videop2r_data.cards.hub_check import card_head
from videop2r_data.cards.markdown import cell, prose, table
from videop2r_data.cards.model_facts import (
    CURVES,
    RL_METRICS,
    SFT_METRICS,
    Evaluation,
    RunFacts,
    number,
    read_facts,
    section,
)
from videop2r_data.errors import ExportError

PAPER = "https://arxiv.org/abs/2511.11113"
BASE_LICENSES = {
    "Qwen/Qwen2.5-VL-7B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-VL-32B-Instruct": "apache-2.0",
    "Qwen/Qwen3-VL-2B-Instruct": "apache-2.0",
    "Qwen/Qwen3-VL-4B-Instruct": "apache-2.0",
    "Qwen/Qwen3-VL-8B-Instruct": "apache-2.0",
    "Qwen/Qwen3-VL-32B-Instruct": "apache-2.0",
}
"""What may be assumed of a base model; weights trained from it carry its terms."""
_STAGES = {
    "sft": "supervised fine-tuning on process-aware traces",
    "rl": "reinforcement learning from rewards per process",
}
_SHOWN = {
    "sft": ("data", "model", "optim", "batch", "steps", "epochs", "precision", "seed"),
    "rl": (
        "data", "model", "objective", "rewards", "loss", "rl", "sampling", "judging", "optim", "batch",
        "steps", "epochs", "precision", "seed",
    ),
}  # fmt: skip
_SECRET = ("api_key_env", "base_url", "extra", "cache")


def write_model_card(
    run: Path, *, base_model: str | None = None, license_id: str | None = None, strict: bool = False
) -> Path:
    """Write `README.md` into a finished run, from its files; the curves go along into `final/figures`.

    Args:
        run: folder of `p2r-train sft` or `rl`.
        base_model: Hub id of the model that the training began with; None: as the recipes of the chain say,
            else as the run's earlier card.
        license_id: of the weights; None: as the earlier card, else that of a known base model, else none.
        strict: curves, an evaluation and a licence must be there (before a push).

    Raises:
        ExportError: the run has not ended, a file is missing or damaged, or lacks a number.
    """
    facts = read_facts(run)
    said = _said_before(run / "README.md")
    base = base_model or facts.base_model or said.get("base_model")
    terms = license_id or said.get("license") or BASE_LICENSES.get(base or "")
    if strict:
        _check_whole(run, facts, terms)
    head = yaml.safe_dump(_head(facts, base, terms), sort_keys=False, allow_unicode=True, width=1000)
    text = f"---\n{head}---\n\n{_body(facts, base)}"  # everything is known before anything is written
    path = run / "README.md"
    draft = run / ".README.md.partial"
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    if facts.curves and (run / "final").is_dir():
        copied = run / "final" / CURVES
        copied.parent.mkdir(exist_ok=True)
        shutil.copyfile(run / CURVES, copied)
    return path


def _said_before(path: Path) -> dict[str, str]:
    """What a person said when the card was written before: no file of the run knows it."""
    try:
        head = card_head(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError):
        return {}
    return {name: head[name] for name in ("license", "base_model") if isinstance(head.get(name), str)}


def _check_whole(run: Path, facts: RunFacts, terms: str | None) -> None:
    for there, what, hint in (
        (facts.curves, f"no {CURVES}", f"p2r-train plot {run}"),
        (facts.evaluations, "no evaluation", f"p2r-train eval {run} --data HELD_OUT"),
        (terms, "no licence is known", "name the licence of the weights"),
    ):
        if not there:
            raise ExportError(what, where=str(run), hint=hint)


def _head(facts: RunFacts, base: str | None, terms: str | None) -> dict[str, Any]:
    source = str(section(facts.recipe, "data").get("source", ""))
    objective = str(section(facts.recipe, "objective").get("name", "pa-grpo"))
    tags = ["process-aware", "chain-of-thought", "video", "image", "reasoning", "perception", facts.stage]
    if facts.stage == "rl":
        tags.append(objective)
    if facts.synthetic:
        tags.append("synthetic")
    hub_data = not facts.synthetic and source.count("/") == 1 and not source.startswith((".", "/", "~"))
    return {
        **({"license": terms} if terms else {}),
        "language": ["en"],
        "library_name": "transformers",
        "pipeline_tag": "video-text-to-text",
        **({"base_model": base, "base_model_relation": "finetune"} if base else {}),
        **({"datasets": [source]} if hub_data else {}),
        "tags": tags,
    }


def _body(facts: RunFacts, base: str | None) -> str:
    name = str(facts.recipe.get("title") or facts.recipe.get("name") or "model")
    made = f"`{base}`" if base else "weights that were made from scratch"
    parts = [
        f"# {cell(name)}\n",
        f"{made[0].upper()}{made[1:]}, after {_STAGES[facts.stage]} with the method of [VideoP2R]({PAPER}). "
        "It answers a question about a video or an image in three parts: what is seen stands apart from what "
        "is concluded.\n",
        "    <observation>…</observation> <think>…</think><answer>…</answer>\n",
    ]
    if facts.synthetic:
        parts.append(
            "> **Synthetic.** Trained on clips that a program drew: it knows nothing of the world.\n"
        )
    parts += [*_evaluated(facts), *_training(facts), *_made_of(facts)]
    parts += ["## Limits\n", _limits(facts), "## Citation\n", _CITATION]
    return "\n".join(parts)


def _evaluated(facts: RunFacts) -> list[str]:
    parts = ["## Evaluation\n"]
    if not facts.evaluations:
        return [*parts, "Not evaluated yet: no number is known about this model on held-out questions.\n"]
    for one in facts.evaluations:
        parts += [f"### {cell(one.name)}\n", _settings(one), _results(one)]
    return parts


def _results(one: Evaluation) -> str:
    """One line per aggregate; what no question could tell is said so."""
    report, where = one.report, f"eval/{one.name}/report.json"
    lines = [("answer accuracy, all questions", report.get("accuracy"))]
    lines += [
        (f"answer accuracy, {kind}", found) for kind, found in section(report, "accuracy_by_type").items()
    ]
    lines += [
        ("observation suffices for the answer", report.get("sufficiency")),
        ("answer accuracy where it suffices", report.get("accuracy_if_sufficient")),
        ("answer accuracy where it does not", report.get("accuracy_if_not")),
        ("think and answer differ", report.get("mismatch")),
        ("valid format", report.get("format")),
        ("tokens per completion", section(report, "lengths").get("all")),
    ]
    rows = []
    for name, found in lines:
        if not isinstance(found, Mapping):
            rows.append([cell(str(name)), "no question can tell", "", "0"])
            continue
        value, low, high, n = (number(found, key, where) for key in ("value", "low", "high", "n"))
        form = ".1f" if name.startswith("tokens") else ".3f"
        rows.append([cell(str(name)), f"{value:{form}}", f"{low:{form}} to {high:{form}}", f"{n:,.0f}"])
    level = number(report, "level", where)
    asked, questions = number(report, "asked", where), number(report, "questions", where)
    left = f" {questions - asked:,.0f} questions could not be asked." if questions > asked else ""
    head = ["", "value", f"{level:.0%} interval", "questions"]
    return f"{table(head, rows)}\nShares: Wilson's interval; means: bootstrap over questions.{left}\n"


def _settings(one: Evaluation) -> str:
    data, sampling = section(one.settings, "data"), section(one.settings, "sampling")
    media = section(data, "media")
    return (
        f"Data `{cell(_base_name(data.get('source')))}`, rows from {data.get('start', 0)} on; "
        f"{media.get('frames')} frames of at most {media.get('max_pixels')} pixels; temperature "
        f"{sampling.get('temperature')}, top_p {sampling.get('top_p')}, at most "
        f"{sampling.get('max_new_tokens')} tokens.\n"
    )


def _training(facts: RunFacts) -> list[str]:
    names = RL_METRICS if facts.stage == "rl" else SFT_METRICS
    rows = [[names[key], f"{value:.4g}"] for key, value in facts.last.items()]
    parts = [
        "## Training\n",
        f"{facts.run['steps']:,} steps. Means over the last tenth of them:\n",
        table(["", "mean"], rows),
    ]
    if facts.curves:
        parts.append(f"![Curves of the training]({CURVES})\n")
    recipe = {key: _public(facts.recipe[key]) for key in _SHOWN[facts.stage] if key in facts.recipe}
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100).replace("```", "'''")
    return [*parts, "### Recipe\n", f"```yaml\n{text}```\n"]


def _made_of(facts: RunFacts) -> list[str]:
    data, versions = section(facts.run, "data"), section(facts.run, "versions")
    examples = data.get("examples")
    rows = [
        ["training data", f"`{cell(_base_name(section(facts.recipe, 'data').get('source')))}`"],
        [
            "examples",
            "an endless stream" if examples is None else f"{number(data, 'examples', 'run.json'):,.0f}",
        ],
        ["data sha256", f"`{cell(str(data.get('data_sha256') or '-'))}`"],
        ["prompt sha256", f"`{cell(str(data.get('prompt_sha256') or '-'))}`"],
        ["recipe sha256", f"`{cell(str(facts.run.get('recipe_sha256') or '-'))}`"],
        ["processes", str(facts.run.get("processes", 1))],
        *([cell(str(name)), cell(str(version))] for name, version in versions.items()),
    ]
    return ["## Made of\n", table(["", ""], rows)]


def _limits(facts: RunFacts) -> str:
    lines = [
        "Frames are sampled evenly: an event between two of them is not seen.",
        "The observation is written by the model itself: it can be fluent and wrong.",
        "An answer can be right although the observation does not carry it; the evaluation counts how often.",
        "Whatever the base model and the training data lack in domain knowledge, this model lacks too.",
    ]
    if facts.stage == "rl" and section(facts.recipe, "judging").get("kind") == "backend":
        judge = section(section(facts.recipe, "judging"), "backend").get("model")
        lines.append(
            f"Perception was rewarded by a model (`{cell(str(judge))}`), and its mistakes were learnt."
        )
    return "".join(f"- {prose(line)}\n" for line in lines)


def _public(value: Any) -> Any:
    """A section of the recipe without addresses and local folders."""
    if isinstance(value, Mapping):
        return {k: _public(v) for k, v in value.items() if k not in _SECRET and v is not None}
    if isinstance(value, str) and value.startswith(("/", "~")):
        return _base_name(value)
    return value


def _base_name(source: Any) -> str:
    """A local path's last part (its folders are nobody's business); a Hub id as it is."""
    text = str(source or "-")
    return Path(text).name or text if text.startswith(("/", "~", ".")) else text


_CITATION = """```bibtex
@misc{videop2r,
  title         = {VideoP2R: Video Understanding from Perception to Reasoning},
  author        = {Jiang, Yifan and Wang, Yueying and Zhao, Rui and Parag, Toufiq and Chen, Zhimin and
                   Liao, Zhenyu and Unnikrishnan, Jayakrishnan},
  year          = {2025},
  eprint        = {2511.11113},
  archivePrefix = {arXiv},
  url           = {https://arxiv.org/abs/2511.11113}
}
```
"""
