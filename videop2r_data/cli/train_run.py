"""`p2r-train sft`, `rl`, `recipes`, `init` and `schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from videop2r_data.cli.common import errors_as_messages

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
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
ObjectiveOpt = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="pa-grpo, grpo, no-separation, no-perception, no-reasoning, no-length or t-grpo."
    ),
]
GroupOpt = Annotated[int | None, typer.Option(min=2, metavar="N", help="Rollouts per prompt.")]
RolloutsOpt = Annotated[str | None, typer.Option(metavar="KIND", help="Who draws: hf, vllm or vllm-server.")]
_EPILOG = "Example: p2r-train {0} tiny-{0} --data videop2r-demo --model {1} --output runs/{0}"
_MORE = (
    "\n\nThe same command goes on with a run that was stopped. On several GPUs: accelerate launch "
    "--config_file FILE -m videop2r_data.cli.train {0} ...; `p2r-train recipes` names the packaged files."
    "\n\nExit code 0: done. 1: an error. 2: wrong usage. 3: stopped before the end; the same "
    "command goes on. 4: judging.max_cost is reached."
)


def add(app: typer.Typer) -> None:
    """Put the commands on the program."""
    app.command(
        epilog=_EPILOG.format("sft", "tiny"),
        help="Supervised fine-tuning on the traces of a data set." + _MORE.format("sft"),
    )(sft)
    app.command(
        epilog=_EPILOG.format("rl", "runs/sft/final"),
        help="Reinforcement learning (PA-GRPO and its ablations) on the questions of a data set."
        + _MORE.format("rl"),
    )(rl)
    app.command(epilog="Example: p2r-train recipes")(recipes)
    app.command(epilog="Example: p2r-train init paper-7b-rl my-rl.yaml")(init)
    app.command(epilog="Example: p2r-train schema > train-recipe.schema.json")(schema)


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
    """See `add`."""
    flags = _flags(data, media_root, model, output, steps, epochs, lr, batch, micro, seed, tracker)
    _stage("sft", name, recipe, flags, sets, anyway=anyway, fresh=fresh, dry_run=dry_run, as_json=json)


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
    """See `add`."""
    flags = _flags(data, media_root, model, output, steps, epochs, lr, batch, micro, seed, tracker)
    flags |= {"objective.name": objective, "rl.group_size": group_size, "sampling.backend": rollouts}
    _stage("rl", name, recipe, flags, sets, anyway=anyway, fresh=fresh, dry_run=dry_run, as_json=json)


def recipes(json: JsonOpt = False) -> None:
    """List the packaged recipes and accelerate configs."""
    with errors_as_messages(as_json=json):
        show_recipes(as_json=json)


def init(
    name: Annotated[str, typer.Argument(help="Packaged recipe to start from.")],
    path: Annotated[Path | None, typer.Argument(help="File to write; else NAME.yaml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented training recipe to start from."""
    with errors_as_messages():
        write_recipe(name, path or Path(f"{name}.yaml"), force=force)


def schema() -> None:
    """Print the JSON Schema of a training recipe."""
    from videop2r_data.cli.output import print_json
    from videop2r_data.trainer.run.config import TrainRecipe

    with errors_as_messages():
        print_json(TrainRecipe.model_json_schema())


def _flags(
    data: str | None,
    media_root: Path | None,
    model: str | None,
    output: Path | None,
    steps: int | None,
    epochs: float | None,
    lr: float | None,
    batch: int | None,
    micro: int | None,
    seed: int | None,
    tracker: list[str] | None,
) -> dict[str, Any]:
    """The common flags as settings of the recipe."""
    return {
        "data.source": data,
        "data.media_root": None if media_root is None else str(media_root),
        "model.model": model,
        "output": None if output is None else str(output),
        "steps": steps,
        "epochs": epochs,
        "optim.lr": lr,
        "batch.size": batch,
        "batch.micro": micro,
        "seed": seed,
        "trackers": tracker or None,
    }


def _stage(
    stage: str,
    name: str | None,
    option: str | None,
    flags: dict[str, Any],
    sets: list[str] | None,
    *,
    anyway: bool,
    fresh: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    if (name is None) == (option is None):
        raise typer.BadParameter(
            "name one recipe: p2r-train recipes lists them" if name is None else "two recipes are named",
            param_hint="RECIPE",
        )
    with errors_as_messages(as_json=as_json):
        run_stage(
            stage,
            name or option or "",
            flags=flags,
            sets=sets or [],
            anyway=anyway,
            fresh=fresh,
            dry_run=dry_run,
            as_json=as_json,
        )
