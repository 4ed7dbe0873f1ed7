"""`p2r-train`: train on what `p2r-data build` made, and look at the runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videop2r_data.cli import ask, compare, evaluate, hub, study, train_eval, train_plan, train_run
from videop2r_data.cli.common import (
    UNFINISHED,
    JsonOpt,
    Program,
    QuietOpt,
    VerboseOpt,
    VersionOpt,
    err_console,
    out_console,
    register,
    shell,
    show,
)
from videop2r_data.cli.export_lmms import export_lmms
from videop2r_data.cli.terminal import print_json, table
from videop2r_data.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from videop2r_data.trainer import LengthReport


app = typer.Typer(
    name="p2r-train",
    help="Train on process-aware chain-of-thought data.",
    cls=Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(version: VersionOpt = False, quiet: QuietOpt = False, verbose: VerboseOpt = False) -> None:
    """Train on process-aware chain-of-thought data."""


def lengths(
    folder: Annotated[Path, typer.Argument(help="A data set that p2r-data build made, or one file of rows.")],
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="tokenizer.json, or the model folder that holds it; else words."),
    ] = None,
    perception: Annotated[
        tuple[int, int], typer.Option(metavar="LOW HIGH", help="Bounds of the observation.")
    ] = (128, 320),
    reasoning: Annotated[
        tuple[int, int], typer.Option(metavar="LOW HIGH", help="Bounds of think and answer.")
    ] = (320, 512),
    json: JsonOpt = False,
) -> None:
    """Lengths of both processes against the bounds of the length reward, before you train.

    The reward counts tokens: name your model's tokenizer. Without one words are counted, which are fewer.
    """
    from videop2r_data.trainer import measure_lengths

    for name, (low, high) in (("--perception", perception), ("--reasoning", reasoning)):
        if low > high:
            raise typer.BadParameter(f"{low} is above {high}", param_hint=name)
    report = measure_lengths(folder, tokenizer=tokenizer, perception=perception, reasoning=reasoning)
    show(report, _render_lengths, as_json=json)


def _render_lengths(report: LengthReport, console: Console) -> None:
    """Print one column per segment: that fits the narrowest terminal."""
    made = table(f"{report.rows:,} accepted traces", *(f"{p.process}, {p.unit}" for p in report.processes))
    lines = {
        "bounds": [f"{p.low:,} to {p.high:,}" for p in report.processes],
        "within": [f"{p.within:.0%}" for p in report.processes],
        "below": [f"{p.below:.0%}" for p in report.processes],
        "above": [f"{p.above:.0%}" for p in report.processes],
    }
    for name, at in (("5 % are at most", 5), ("median", 50), ("95 % are at most", 95)):
        lines[name] = [f"{p.percentiles[at]:,}" for p in report.processes]
    for name, cells in lines.items():
        made.add_row(name, *cells)
    console.print(made)


# `tiny`: a Qwen2.5-VL of a million weights for the demo world, to try everything without a GPU.


def tiny(
    folder: Annotated[Path, typer.Argument(help="Where the model goes: a checkpoint for from_pretrained.")],
    steps: Annotated[
        int, typer.Option(min=0, metavar="N", help="Train it from scratch for N updates; 0: random weights.")
    ] = 0,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The training run's folder; else FOLDER-sft.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Clips per update.")] = 32,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the random weights and the run.")] = 0,
    hidden: Annotated[int, typer.Option(min=16, metavar="N", help="Width of the text model.")] = 128,
    layers: Annotated[int, typer.Option(min=1, metavar="N", help="Layers of the text model.")] = 4,
    objects: Annotated[int, typer.Option(min=1, max=3, metavar="N", help="Shapes in a clip at most.")] = 3,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="KIND", help="Question kind or type to learn; again for more."),
    ] = None,
    words: Annotated[
        bool, typer.Option("--words", help="Tokens end at words, as in Qwen: three times the tokens.")
    ] = False,
    chats: Annotated[
        int, typer.Option(min=1, metavar="N", help="Chats that the tokenizer is learnt from.")
    ] = 3000,
    json: JsonOpt = False,
) -> None:
    """Make a tokenizer and a tiny Qwen2.5-VL for the demo world, and train it from scratch.

    Without --steps the weights are random: a model to try recipes and servers with. With it the model learns
    on the endless demo stream; the same command goes on with a run that was stopped.
    """
    from videop2r_data.trainer.tiny import TinySpec, TinyWorld

    shape = {"hidden": hidden, "intermediate": hidden * 5 // 2, "layers": layers}
    spec = _checked(TinySpec, **shape, phrases=not words, corpus=chats, seed=seed)
    chosen = {"tasks": tuple(task)} if task else {}
    world = _checked(TinyWorld, max_objects=objects, **chosen)
    made = _make(folder, spec, world if task else None)
    if steps:
        made |= _train(folder, output or Path(f"{folder}-sft"), spec, world, steps, batch, seed)
    if json:
        print_json(made)
    else:
        _show_tiny(made)
    if made.get("complete") is False:
        raise typer.Exit(UNFINISHED)


def _checked(kind: Any, **settings: Any) -> Any:
    """A settings model of these values.

    Raises:
        ConfigError: with all that is wrong with them.
    """
    from pydantic import ValidationError

    try:
        return kind(**settings)
    except ValidationError as error:
        wrong = "; ".join(str(e["msg"]).removeprefix("Value error, ") for e in error.errors())
        raise ConfigError(wrong, hint="p2r-train tiny --help shows what is allowed") from None


def _make(folder: Path, spec: Any, world: Any) -> dict[str, Any]:
    """Write the model. The tokenizer is learnt from the whole demo world, or from `world` alone if given."""
    from videop2r_data.trainer.tiny import count_weights_on_disk, make_tiny

    make_tiny(folder, spec, world=world)
    return {"model": str(folder), "weights": count_weights_on_disk(folder)}


def _train(
    model: Path, output: Path, spec: Any, world: Any, steps: int, batch: int, seed: int
) -> dict[str, Any]:
    from videop2r_data.cli.train_run import TrainProgress
    from videop2r_data.trainer import Stop, on_signals, train
    from videop2r_data.trainer.tiny import scratch_recipe

    recipe = scratch_recipe(model, output, spec=spec, world=world, steps=steps, batch=batch, seed=seed)
    console, stop = err_console(), Stop()
    with TrainProgress(console) as progress, on_signals(stop, console.print):
        done = train(recipe, watchers=[progress], stop=stop)
    return {
        "run": str(done.folder),
        "complete": done.complete,
        "steps_done": done.steps_done,
        "trained": str(done.model) if done.complete else None,
        "loss": done.last.get("loss"),
    }


def _show_tiny(made: dict[str, Any]) -> None:
    lines = [f"made       {shell(made['model'])}: {made['weights']:,} weights"]
    if "run" not in made:
        lines.append(f"train it   p2r-train tiny {shell(made['model'])} --steps 1500")
    elif not made["complete"]:
        lines.append(f"stopped after step {made['steps_done']:,}; the same command goes on")
    else:
        lines.append(f"trained    {shell(made['trained'])}, last loss {made['loss']:.3f}")
        lines.append(f"see it     p2r-train plot {shell(made['run'])}")
    for line in lines:
        out_console().print(line, soft_wrap=True, markup=False)


register(app, {lengths: "lengths videop2r-demo --tokenizer Qwen2.5-VL-7B-Instruct/"})
train_run.add(app)
register(
    app,
    {
        compare.compare: "compare results/sft results/pa-grpo --reported table-1",
        study.study: "study frames plan.yaml --frames 4,8,16,32 --pixels 50176,200704",
        ask.ask: 'ask runs/pa-grpo clip.mp4 "What falls first?" cup plate',
        train_run.recipes: "recipes",
        train_run.init: "init paper-7b-rl my-rl.yaml",
        train_run.schema: "schema > train-recipe.schema.json",
        train_plan.plan: "plan paper-7b-rl --gpus 8x80",
        train_eval.plot: "plot runs/pa-grpo runs/grpo --out compare.png",
        train_eval.samples: "samples runs/pa-grpo --step 100",
        evaluate.evaluate: "eval runs/pa-grpo --benchmark held-out/ --media-root media/",
        export_lmms: "export-lmms results/pa-grpo lmms-logs",
        train_eval.card: "card runs/pa-grpo --strict",
        tiny: "tiny tiny --steps 1500",
        hub.push_run: "push runs/pa-grpo me/my-model --private",
    },
)


def run() -> None:
    """The entry point of `p2r-train`."""
    app()


if __name__ == "__main__":  # accelerate launch -m videop2r_data.cli.train
    run()
