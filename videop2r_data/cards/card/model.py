"""The card of a trained model, made from the files of its run."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import ValidationError

from videop2r_data.cards.card.dataset import card_head
from videop2r_data.cards.card.facts import frames_words
from videop2r_data.cards.card.markdown import cell, prose, table
from videop2r_data.cards.card.metadata import PAPER
from videop2r_data.errors import ExportError
from videop2r_data.files import CARD_NAME
from videop2r_data.schemas import (
    BenchmarkResult,
    EvalResult,
    Measured,
    Role,
    TraceGrammar,
    default_grammar,
    parse_mapping,
    read_settings,
    trace_parser,
    validate_settings,
)
from videop2r_data.validators import Raised, alarms_in

# Facts of a run, from its files only. A number that should be there and is not is an error: a card with a gap
# would read as if nothing had been measured.

RECIPE, RUN, METRICS = "recipe.yaml", "run.json", "metrics.jsonl"
CURVES = "figures/curves.png"
LAST_SHARE = 0.1
"""Share of the run over which final metrics are averaged."""
_KEYS = {"perception": "p", "reasoning": "r"}
"""Stream of a trace -> its key in the metrics; others are called by their names."""
SFT_METRICS = {"loss": "loss, nats per token", "grad_norm": "gradient norm"}
RL_METRICS = {
    "length/all": "tokens per completion",
    "collapsed/sum": "collapsed groups per step, of the sum",
    "groups": "groups per step",
    "kl": "KL to the reference, nats per token",
}
"""Behind the rewards of each stream."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_DEPTH = 8


@dataclass(frozen=True)
class RunFacts:
    """What a model card is made from.

    Attributes:
        recipe: the effective recipe, as plain values.
        run: `run.json`.
        last: metric -> mean over the last tenth of the steps.
        evaluations: results of `p2r-train eval`, by the names of their folders; may be empty.
        base_model: Hub id of the first model in the chain of runs; None: weights made from scratch.
        curves: whether `figures/curves.png` is there.
        grammar: what the model's completions are made of.
        alarms: of the run, up at any of its readings.
    """

    recipe: Mapping[str, Any]
    run: Mapping[str, Any]
    last: Mapping[str, float]
    evaluations: tuple[EvalResult, ...]
    base_model: str | None
    curves: bool
    grammar: TraceGrammar
    alarms: tuple[Raised, ...] = ()

    @property
    def stage(self) -> str:
        """`sft` or `rl`."""
        return str(self.recipe["stage"])

    @property
    def synthetic(self) -> bool:
        """Whether the training data are the synthetic stream."""
        return bool(section(self.recipe, "data").get("source") == "demo")


def read_facts(folder: Path) -> RunFacts:
    """Read a finished run.

    Raises:
        ExportError: a file is missing or damaged, the run has not ended, or a number is missing.
        ConfigError: the recipe is not YAML.
    """
    recipe = parse_mapping(
        read_settings(folder / RECIPE), where=str(folder / RECIPE), what="training recipe", valid=""
    )
    run = read_json(folder / RUN)
    for place, data, names in (
        (RECIPE, recipe, ("stage", "data", "model")),
        (RUN, run, ("steps", "steps_done", "data", "versions")),
    ):
        for name in names:
            if name not in data:
                raise ExportError(f"no field {name!r}", where=str(folder / place))
    if run["steps_done"] != run["steps"]:
        raise ExportError(
            f"the run stands at step {run['steps_done']} of {run['steps']}",
            where=str(folder),
            hint="let it end: the same command goes on",
        )
    told = section(run, "data").get("trace")
    grammar = (
        default_grammar()
        if told is None
        else validate_settings(told, TraceGrammar, where=RUN, what="trace grammar")
    )
    return RunFacts(
        recipe=recipe,
        run=run,
        last=last_metrics(folder / METRICS, recipe, grammar),
        evaluations=_evaluations(folder),
        base_model=base_of(str(section(recipe, "model").get("model", ""))),
        curves=(folder / CURVES).is_file(),
        grammar=grammar,
        alarms=tuple(alarms_in(_lines(folder / METRICS))),
    )


def metrics_of(recipe: Mapping[str, Any], grammar: TraceGrammar) -> dict[str, str]:
    """Metric -> what it is."""
    if recipe["stage"] != "rl":
        return SFT_METRICS
    named = grammar.named
    earning = {named[name].reward for name in (*grammar.of_role(Role.PERCEPTION), *grammar.answers)}
    keys = {name: _KEYS.get(name, name) for name in grammar.streams}
    accurate = {
        f"reward/accuracy_{keys[name]}": f"accuracy reward, {name}" for name in keys if name in earning
    }
    return accurate | {f"reward/format_{keys[name]}": f"format reward, {name}" for name in keys} | RL_METRICS


def last_metrics(path: Path, recipe: Mapping[str, Any], grammar: TraceGrammar) -> dict[str, float]:
    """Means over the last tenth of the steps; a metric that these settings cannot give may be missing."""
    steps: dict[int, dict[str, Any]] = {}
    for row in _lines(path):
        if isinstance(row.get("step"), int):
            steps.setdefault(row["step"], {}).update(row)
    if not steps:
        raise ExportError("no step in it", where=str(path))
    last = sorted(steps)[-max(1, math.ceil(len(steps) * LAST_SHARE)) :]
    lacking = {"kl"} if section(recipe, "loss").get("beta") == 0 else set()
    if section(recipe, "judging").get("kind", "none") == "none":
        seeing = {grammar.named[name].reward for name in grammar.of_role(Role.PERCEPTION)}
        lacking |= {f"reward/accuracy_{_KEYS.get(name, name)}" for name in seeing}
    found = {}
    for name in metrics_of(recipe, grammar):
        values = [steps[step][name] for step in last if isinstance(steps[step].get(name), int | float)]
        if not values or not all(math.isfinite(value) for value in values):
            if name in lacking:
                continue
            raise ExportError(f"no {name!r} in the last {len(last)} steps", where=str(path))
        found[name] = sum(values) / len(values)
    return found


def base_of(model: str) -> str | None:
    """The Hub id of the first model in a chain of runs, followed from each run's recipe to the one before."""
    for _ in range(_DEPTH):
        path = Path(model).expanduser()
        if not path.is_dir():
            return model if _HUB_ID.fullmatch(model) else None
        parent = next((p for p in (path, path.resolve().parent) if (p / RECIPE).is_file()), None)
        if parent is None:
            return None
        recipe = parse_mapping(read_settings(parent / RECIPE), where=str(parent / RECIPE), valid="")
        model = str(section(recipe, "model").get("model", ""))
    return None


def _evaluations(folder: Path) -> tuple[EvalResult, ...]:
    """Evaluations of the final model; those made during training are no results."""
    found = []
    for path in sorted((folder / "eval").glob("*/result.json")):
        try:
            found.append(EvalResult.model_validate(read_json(path)))
        except ValidationError as error:
            raise ExportError(
                f"no result of this version: {error.errors()[0]['msg']}",
                where=str(path),
                hint="p2r-train eval --rescore makes it anew, without a call; or delete the folder",
            ) from None
    return tuple(found)


def section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of a recipe; empty if the recipe leaves it out."""
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def number(values: Mapping[str, Any], name: str, where: str) -> float:
    """A finite number, or `ExportError`."""
    found = values.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ExportError(f"{name!r} is {found!r}, not a number", where=where)
    return float(found)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or `ExportError`."""
    try:
        data = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(data, dict):
        raise ExportError("not a JSON object", where=str(path))
    return data


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExportError(f"cannot be read: {error}", where=str(path)) from None
    rows = []
    for line in data.split(b"\n"):
        with suppress(ValueError):  # a torn last line; a step that is missing for it is found by its metrics
            rows.append(orjson.loads(line))
    return [row for row in rows if isinstance(row, dict)]


# The card's text.

BASE_LICENSES = {
    "Qwen/Qwen2.5-VL-7B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-VL-32B-Instruct": "apache-2.0",
    "Qwen/Qwen3-VL-2B-Instruct": "apache-2.0",
    "Qwen/Qwen3-VL-4B-Instruct": "apache-2.0",
    "Qwen/Qwen3-VL-8B-Instruct": "apache-2.0",
    "Qwen/Qwen3-VL-32B-Instruct": "apache-2.0",
}
"""Licences of known base models; weights trained from one carry its licence."""
_STAGES = {
    "sft": "supervised fine-tuning on process-aware traces",
    "rl": "reinforcement learning from rewards per process",
}
_SHOWN = {
    "sft": ("data", "model", "optim", "batch", "steps", "epochs", "precision", "seed"),
    "rl": (
        "data", "model", "objective", "rewards", "loss", "rl", "sampling", "judging", "alarms", "optim",
        "batch", "steps", "epochs", "precision", "seed",
    ),
}  # fmt: skip
_SECRET = ("api_key_env", "base_url", "base_urls", "serve", "extra", "cache")


def write_model_card(
    run: Path, *, base_model: str | None = None, license_id: str | None = None, strict: bool = False
) -> Path:
    """Write `README.md` into a finished run, and copy its curves to `final/figures`.

    Args:
        run: folder of `p2r-train sft` or `rl`.
        base_model: Hub id of the model that the training began with; None: from the recipes of the chain,
            else from the run's earlier card.
        license_id: of the weights; None: from the earlier card, else that of a known base model, else none.
        strict: refuse a run without curves, evaluation or licence (before a push).

    Raises:
        ExportError: the run has not ended, a file is missing or damaged, or lacks a number.
    """
    facts = read_facts(run)
    said = _said_before(run / CARD_NAME)
    base = base_model or facts.base_model or said.get("base_model")
    terms = license_id or said.get("license") or BASE_LICENSES.get(base or "")
    if strict:
        _check_whole(run, facts, terms)
    head = yaml.safe_dump(_head(facts, base, terms), sort_keys=False, allow_unicode=True, width=1000)
    text = f"---\n{head}---\n\n{_body(facts, base)}"  # everything is known before anything is written
    path = run / CARD_NAME
    draft = run / ".README.md.partial"
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    if facts.curves and (run / "final").is_dir():
        copied = run / "final" / CURVES
        copied.parent.mkdir(exist_ok=True)
        shutil.copyfile(run / CURVES, copied)
    return path


def _said_before(path: Path) -> dict[str, str]:
    """`license` and `base_model` of the earlier card: a person gave them, no file of the run has them."""
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
    tags = ["process-aware", "chain-of-thought", "video", "image", "reasoning", "perception", facts.stage]
    if facts.stage == "rl":
        tags.append(str(section(facts.recipe, "objective").get("name", "pa-grpo")))
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
    grammar = facts.grammar
    form = "in three parts: what is seen stands apart from what is concluded."
    if grammar != default_grammar():
        form = prose(f"in traces of the form {grammar.name}{grammar.about and f', {grammar.about}'}.")
    needed = [(spec.name, "…") for spec in grammar.flat if not spec.text]
    skeleton = trace_parser(grammar).render(needed).strip().replace("\n", "\n    ")
    parts = [
        f"# {cell(name)}\n",
        f"{made[0].upper()}{made[1:]}, after {_STAGES[facts.stage]} with the method of [VideoP2R]({PAPER}). "
        f"It answers a question about a video or an image {form}\n",
        f"    {skeleton}\n",
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
        for benchmark in one.benchmarks:
            parts += [f"### {cell(benchmark.title)}\n", _settings(one), _results(benchmark)]
    return parts


def _results(one: BenchmarkResult) -> str:
    """A table with one line per figure, over all questions and by problem type."""
    rows = []
    for found in one.figures:
        if found.by in ("", "problem_type"):
            named = found.protocol if not found.by else f"{found.protocol}, {found.group}"
            rows.append([cell(named), *(cell(text) for text in numbers(found))])
    for found in one.faithful.figures if one.faithful is not None else ():
        if found.by != "segment":  # lengths stand in the result
            rows.append([cell(found.protocol.replace("_", " ")), *map(cell, numbers(found))])
    lost = sum(one.failed.values())
    left = f" {lost:,} of {one.questions:,} got no answer and count as wrong." if lost else ""
    head = ["", "value", "interval", "questions", "question only"]
    return f"{table(head, rows)}\nQuestion only: the same model without the media.{left}\n"


def numbers(found: Measured) -> list[str]:
    """Value, interval, number of questions, and the figure of the question alone, for a table."""

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value * found.scale:.{1 if found.scale >= 100 else 3}f}"

    if found.value is None:
        return ["-", "", f"{found.n:,}", shown(found.question_only)]
    interval = f"{shown(found.low)} to {shown(found.high)}" if found.low is not None else ""
    return [shown(found.value), interval, f"{found.n:,}", shown(found.question_only)]


def _settings(one: EvalResult) -> str:
    plan, media = one.plan, section(one.plan, "media")
    frames = frames_words(media).removesuffix(" uniform")
    return (
        f"{frames} frames of at most {media.get('max_pixels')} pixels; temperature "
        f"{plan.get('temperature')}, top_p {plan.get('top_p')}, at most {plan.get('max_tokens')} tokens.\n"
    )


def _training(facts: RunFacts) -> list[str]:
    names = metrics_of(facts.recipe, facts.grammar)
    rows = [[names[key], f"{value:.4g}"] for key, value in facts.last.items()]
    parts = [
        "## Training\n",
        f"{facts.run['steps']:,} steps. Means over the last tenth of them:\n",
        table(["", "mean"], rows),
    ]
    if facts.alarms:
        told = "".join(f"- {prose(one.line)}\n" for one in facts.alarms)
        parts.append(f"**Alarms.** What the run measured of itself says that it may not look:\n\n{told}")
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
        ["examples", "an endless stream" if examples is None else f"{number(data, 'examples', RUN):,.0f}"],
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
    """A section of the recipe without addresses, keys and local folders."""
    if isinstance(value, Mapping):
        return {k: _public(v) for k, v in value.items() if k not in _SECRET and v is not None}
    if isinstance(value, str) and value.startswith(("/", "~")):
        return _base_name(value)
    return value


def _base_name(source: Any) -> str:
    """The last part of a local path, whose folders are private; a Hub id unchanged."""
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
