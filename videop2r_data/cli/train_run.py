"""`p2r-train sft`, `rl`, `recipes`, `init` and `schema`."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from videop2r_data.cli.common import (
    OK,
    UNFINISHED,
    JsonOpt,
    err_console,
    new_file,
    out_console,
    shell,
)
from videop2r_data.cli.terminal import LiveLine, plural, print_json, say, table
from videop2r_data.errors import ConfigError, P2RError
from videop2r_data.trainer import OBJECTIVES

if TYPE_CHECKING:
    from videop2r_data.trainer import Row, Trained, TrainRecipe


RecipeArg = Annotated[
    str | None, typer.Argument(metavar="[RECIPE]", help="Name of a packaged recipe, or a YAML file.")
]
RecipeOpt = Annotated[str | None, typer.Option("--recipe", metavar="RECIPE", help="The same, as an option.")]
DataOpt = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="Folder that p2r-data build made, a file, a Hub id, or demo."),
]
MediaRootOpt = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder that the rows' media paths are relative to.")
]
ModelOpt = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Folder or Hub id of the model to train.")
]
OutputOpt = Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder; else runs/NAME.")]
StepsOpt = Annotated[int | None, typer.Option(min=1, metavar="N", help="Steps of the whole run.")]
EpochsOpt = Annotated[float | None, typer.Option(metavar="X", help="Passes over the data, instead of steps.")]
LrOpt = Annotated[float | None, typer.Option(metavar="X", help="Highest learning rate.")]
BatchOpt = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Examples of a step, over all processes.")
]
MicroOpt = Annotated[int | None, typer.Option(min=1, metavar="N", help="Examples of one pass of a process.")]
SeedOpt = Annotated[int | None, typer.Option(min=0, metavar="N", help="Seed of order and rollouts.")]
TrackerOpt = Annotated[
    list[str] | None,
    typer.Option("--tracker", metavar="NAME", help="tensorboard, trackio or wandb too; again for more."),
]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting: optim.warmup=0.05; again for more."),
]
AnywayOpt = Annotated[
    bool, typer.Option("--anyway", help="Go on although recipe or data are not those of the checkpoint.")
]
FreshOpt = Annotated[bool, typer.Option("--fresh", help="Refuse a folder that holds a run already.")]
DryOpt = Annotated[bool, typer.Option("--dry-run", help="Print the effective recipe and end.")]
ObjectiveOpt = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=" or ".join(", ".join(OBJECTIVES).rsplit(", ", 1)) + "."),
]
GroupOpt = Annotated[int | None, typer.Option(min=2, metavar="N", help="Rollouts per prompt.")]
RolloutsOpt = Annotated[str | None, typer.Option(metavar="KIND", help="Who draws: hf, vllm or vllm-server.")]
_MORE = (
    "\n\nThe same command goes on with a run that was stopped. On several GPUs: accelerate launch "
    "--config_file FILE -m videop2r_data.cli.train {0} ...; `p2r-train recipes` names the packaged files."
    "\n\nExit code 0: done. 1: an error. 2: wrong usage. 3: stopped before the end; the same "
    "command goes on. 4: judging.max_cost is reached."
)


_SETTINGS = {
    "data": "data.source",
    "media_root": "data.media_root",
    "model": "model.model",
    "output": "output",
    "steps": "steps",
    "epochs": "epochs",
    "lr": "optim.lr",
    "batch": "batch.size",
    "micro": "batch.micro",
    "seed": "seed",
    "tracker": "trackers",
    "objective": "objective.name",
    "group_size": "rl.group_size",
    "rollouts": "sampling.backend",
}
"""Flag -> the setting of the recipe that it changes."""


def add(app: typer.Typer) -> None:
    """Put `sft` and `rl` on the program."""
    example = "Example: p2r-train {0} tiny-{0} --data videop2r-demo --model {1} --output runs/{0}"
    app.command(
        epilog=example.format("sft", "tiny"),
        help="Supervised fine-tuning on the traces of a data set." + _MORE.format("sft"),
    )(sft)
    app.command(
        epilog=example.format("rl", "runs/sft/final"),
        help="Reinforcement learning (PA-GRPO and its ablations) on the questions of a data set."
        + _MORE.format("rl"),
    )(rl)


def sft(
    name: RecipeArg = None,
    recipe: RecipeOpt = None,
    data: DataOpt = None,
    media_root: MediaRootOpt = None,
    model: ModelOpt = None,
    output: OutputOpt = None,
    steps: StepsOpt = None,
    epochs: EpochsOpt = None,
    lr: LrOpt = None,
    batch: BatchOpt = None,
    micro: MicroOpt = None,
    seed: SeedOpt = None,
    tracker: TrackerOpt = None,
    sets: SetOpt = None,
    anyway: AnywayOpt = False,
    fresh: FreshOpt = False,
    dry_run: DryOpt = False,
    json: JsonOpt = False,
) -> None:
    """The help is given in `add`: it is longer than a docstring should be."""
    _stage("sft", locals())


def rl(
    name: RecipeArg = None,
    recipe: RecipeOpt = None,
    data: DataOpt = None,
    media_root: MediaRootOpt = None,
    model: ModelOpt = None,
    output: OutputOpt = None,
    steps: StepsOpt = None,
    epochs: EpochsOpt = None,
    lr: LrOpt = None,
    batch: BatchOpt = None,
    micro: MicroOpt = None,
    seed: SeedOpt = None,
    objective: ObjectiveOpt = None,
    group_size: GroupOpt = None,
    rollouts: RolloutsOpt = None,
    tracker: TrackerOpt = None,
    sets: SetOpt = None,
    anyway: AnywayOpt = False,
    fresh: FreshOpt = False,
    dry_run: DryOpt = False,
    json: JsonOpt = False,
) -> None:
    """The help is given in `add`: it is longer than a docstring should be."""
    _stage("rl", locals())


def recipes(json: JsonOpt = False) -> None:
    """List the packaged recipes and accelerate configs."""
    from videop2r_data.trainer import accelerate_configs, list_train_recipes, load_train_recipe

    found = [load_train_recipe(name) for name in list_train_recipes()]
    configs = {name: str(path) for name, path in accelerate_configs().items()}
    if json:
        about = {recipe.name: {"stage": recipe.stage, "title": recipe.title} for recipe in found}
        print_json({"recipes": about, "accelerate": configs})
        return
    made = table("recipe", "stage", "what", left=(0, 1, 2))
    for recipe in found:
        made.add_row(recipe.name, recipe.stage, recipe.title)
    console = out_console()
    console.print(made)
    console.print("Several GPUs: accelerate launch --config_file FILE -m videop2r_data.cli.train ... with")
    for path in configs.values():
        console.print(f"  {escape(path)}", soft_wrap=True)


def init(
    name: Annotated[str, typer.Argument(help="Packaged recipe to start from.")],
    path: Annotated[Path | None, typer.Argument(help="File to write; else NAME.yaml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented training recipe to start from."""
    from videop2r_data.trainer import load_train_recipe, train_recipe_text

    text = train_recipe_text(name)
    path = new_file(path or Path(f"{name}.yaml"), f"{name}.yaml", force=force)
    path.write_text(text, encoding="utf-8")
    stage = load_train_recipe(name).stage
    say(f"wrote {path}; edit its data and model, then: p2r-train {stage} {shell(path)}")


def schema() -> None:
    """Print the JSON Schema of a training recipe."""
    from videop2r_data.trainer import TrainRecipe

    print_json(TrainRecipe.model_json_schema())


# Progress, the end of a run, and the next command.


_SHOWN = (
    ("loss", "loss {:.3f}"),
    ("reward/total_p", "P {:.2f}"),
    ("reward/total_r", "R {:.2f}"),
    ("reward/format_p", "form {:.2f}"),
    ("kl", "kl {:.3f}"),
    ("grad_norm", "norm {:.2f}"),
    ("tokens_per_s", "{:,.0f} tok/s"),
)


class TrainProgress(LiveLine):
    """The progress line of a run; a `Watcher`."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn())
        note = TextColumn("{task.fields[note]}")
        super().__init__(console, "loading", *columns, note, TimeRemainingColumn(compact=True), note="")
        self._steps = 0
        self.printed = 0.0  # the first row is printed at once: a step of a large model takes minutes

    def begin(self, stage: str, step: int, steps: int) -> None:
        """The run starts or goes on."""
        self._steps = steps
        self.update(description=stage, completed=step, total=steps)

    def row(self, row: Row) -> None:
        """One line of metrics."""
        note = " ".join(form.format(row[name]) for name, form in _SHOWN if name in row)
        if not note:
            return
        step = int(row["step"])
        self.update(completed=step, note=note)
        if not self.live and (self.is_time() or step == self._steps):
            self.console.print(f"step {step:,}/{self._steps:,}  {note}", soft_wrap=True)

    def note(self, text: str) -> None:
        """Something a person wants to know."""
        self.console.print(escape(text), soft_wrap=True)


def _stage(stage: str, given: dict[str, Any]) -> None:
    """Train, show progress, and end with a summary and the next command.

    Args:
        stage: `sft` or `rl`.
        given: the arguments of the command.
    """
    from videop2r_data.trainer import load_train_recipe, recipe_yaml

    named = [name for name in (given["name"], given["recipe"]) if name is not None]
    if len(named) != 1:
        said = "two recipes are named" if named else "name one recipe: p2r-train recipes lists them"
        raise typer.BadParameter(said, param_hint="RECIPE")
    flags = {setting: given.get(flag) for flag, setting in _SETTINGS.items()}
    for setting, value in flags.items():
        if isinstance(value, Path):
            flags[setting] = str(value)
    recipe = load_train_recipe(named[0], sets=given["sets"] or (), flags=flags)
    if recipe.stage != stage:
        hint = f"run: p2r-train {recipe.stage} {shell(named[0])}"
        raise ConfigError(f"a recipe of stage {recipe.stage}", where=named[0], hint=hint)
    if given["dry_run"]:
        say(recipe_yaml(recipe), nl=False)
        return
    from videop2r_data.trainer import Stop, on_signals, train

    _load_libraries()
    console, stop = err_console(), Stop()
    first = os.environ.get("RANK", "0") == "0"

    def tell(text: str) -> None:
        if first:
            console.print(escape(text), soft_wrap=True)

    try:
        with TrainProgress(console) as progress, on_signals(stop, tell):
            trained = train(
                recipe, watchers=[progress], stop=stop, anyway=given["anyway"], fresh=given["fresh"]
            )
    except KeyboardInterrupt:
        tell("stopped at once; the same command goes on from the newest checkpoint")
        raise typer.Exit(UNFINISHED) from None
    if trained.main:
        if trained.complete:
            _write_card(trained, tell)
        if given["json"]:
            print_json(_document(trained))
        else:
            _show_end(trained, recipe, out_console())
    raise typer.Exit(OK if trained.complete else UNFINISHED)


def _load_libraries() -> None:
    """Import what training needs, as far as it is there: `train` says what is missing."""
    # Ctrl-C ends an import at once; while `train` runs it would wait for the end of a step.
    for library in ("torch", "transformers", "accelerate"):
        with suppress(ImportError):
            import_module(library)


def _write_card(trained: Trained, tell: Callable[[str], None]) -> None:
    """A first model card; the run is worth more than its card, so a card that cannot be made is only told."""
    from videop2r_data.cards.card import write_model_card

    try:
        write_model_card(trained.folder)
    except P2RError as error:
        tell(f"no model card yet: {error.message}")


def _document(trained: Trained) -> dict[str, Any]:
    return {
        "folder": str(trained.folder),
        "complete": trained.complete,
        "steps_done": trained.steps_done,
        "steps": trained.steps,
        "model": str(trained.model) if trained.complete else None,
        "skipped": trained.skipped,
        "skipped_updates": trained.skipped_updates,
        "alarms": [one._asdict() for one in trained.alarms],
        "last": trained.last,
    }


def _show_end(trained: Trained, recipe: TrainRecipe, console: Console) -> None:
    """The end of a run, for people."""
    for alarm in trained.alarms:
        console.print(f"[bold red]Alarm[/] {escape(alarm.line)}", soft_wrap=True)
    if not trained.complete:
        console.print(
            f"[bold]Stopped[/] after step {trained.steps_done:,} of {trained.steps:,}; to go on, run the "
            "same command again."
        )
        return
    console.print(f"[bold]Trained[/] {escape(str(trained.model))}", soft_wrap=True)
    last = " ".join(form.format(trained.last[name]) for name, form in _SHOWN if name in trained.last)
    console.print(f"{plural(trained.steps, 'step')}; the last: {last}")
    if trained.skipped_updates:
        console.print(f"no update: {trained.skipped_updates:,} x gradient or loss not finite")
    for reason, count in sorted(trained.skipped.items()):
        console.print(f"left out: {count:,} x {escape(reason)}")
    console.print(f"see it     p2r-train plot {escape(shell(trained.folder))}", soft_wrap=True)
    if recipe.stage == "sft":
        media = f" --media-root {shell(recipe.data.media_root)}" if recipe.data.media_root else ""
        console.print(
            f"go on      p2r-train rl RECIPE --data {escape(shell(recipe.data.source))}{escape(media)} "
            f"--model {escape(shell(trained.model))}",
            soft_wrap=True,
        )
