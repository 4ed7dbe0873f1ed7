"""`p2r-train plan`: the memory of a run, counted before anything is loaded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from videop2r_data.cli.common import FINDINGS, OK, JsonOpt, out_console
from videop2r_data.cli.terminal import print_json, table
from videop2r_data.cli.train_run import BatchOpt, GroupOpt, MicroOpt, ModelOpt, RolloutsOpt, SetOpt

if TYPE_CHECKING:
    from videop2r_data.trainer import MemoryPlan

_GIB = 2**30


def plan(
    recipe: Annotated[str, typer.Argument(help="Name of a packaged recipe, or a YAML file.")],
    gpus: Annotated[str, typer.Option(metavar="NxGIB", help="GPUs and the memory of each.")] = "1x80",
    rollouts: RolloutsOpt = None,
    model: ModelOpt = None,
    shape: Annotated[
        str, typer.Option(metavar="NAME", help="Packaged sizes, for a model that is not here: qwen2.5-vl-7b.")
    ] = "",
    batch: BatchOpt = None,
    micro: MicroOpt = None,
    group_size: GroupOpt = None,
    sets: SetOpt = None,
    host: Annotated[
        float | None, typer.Option(metavar="GIB", help="Memory of the host, to hold the count against.")
    ] = None,
    text: Annotated[
        int, typer.Option(min=32, metavar="N", help="Tokens of a prompt beside those of its clip.")
    ] = 400,
    completion: Annotated[
        int, typer.Option(min=0, metavar="N", help="Tokens of a completion; else the longest allowed.")
    ] = 0,
    json: JsonOpt = False,
) -> None:
    """Count the memory of a run on each GPU and on the host, before anything is loaded.

    The sizes come from the model's config.json, or from a packaged shape; no weights are read. The forward
    and backward pass of the longest rows that the recipe allows is run on tensors without data, and what
    lives at its peak is counted.

    Exit code 0: it fits. 1: it does not, or an error; the settings to lower are named. 2: wrong usage.
    """
    from videop2r_data.trainer import load_train_recipe, plan_memory

    sized = re.fullmatch(r"(\d+)x(\d+(?:\.\d+)?)", gpus)
    if sized is None or int(sized[1]) < 1:
        raise typer.BadParameter(f"{gpus!r}; give GPUs and GiB of each, e.g. 8x80", param_hint="--gpus")
    flags = {
        "sampling.backend": rollouts,
        "model.model": model,
        "batch.size": batch,
        "batch.micro": micro,
        "rl.group_size": group_size,
    }
    found = plan_memory(
        load_train_recipe(recipe, sets=sets or (), flags=flags),
        gpus=int(sized[1]),
        card=float(sized[2]),
        shape=shape,
        text=text,
        completion=completion,
    )
    roomy = host is None or sum(found.host.values()) <= host * _GIB
    if json:
        print_json({**found.model_dump(mode="json"), "peak": found.peak, "fits": found.fits and roomy})
    else:
        _render(found, host, out_console())
    raise typer.Exit(OK if found.fits and roomy else FINDINGS)


def _render(found: MemoryPlan, host: float | None, console: Console) -> None:
    from videop2r_data.trainer.memory import PARTS

    trained = "all trained" if found.trained == found.weights else f"{found.trained / 1e9:.2f} trained"
    name = f"{found.recipe}: {found.shape}, {found.weights / 1e9:.2f} billion weights, {trained}"
    console.print(escape(name), soft_wrap=True)
    each = "on the GPU" if found.training == 1 else f"on each of {found.training} GPUs that train"
    moments = {PARTS[name]: size for name, size in found.phases.items()}
    for title, rows in (
        (each, found.parts),
        ("at the largest moment of", moments),
        ("in the host's memory", found.host),
    ):
        made = table(title, "GiB", left=(0,))
        for name, size in rows.items():
            if size:
                made.add_row(name, f"{size / _GIB:,.2f}")
        console.print(made)
    for line in found.assumed:
        console.print(f"- {escape(line)}", soft_wrap=True)
    if found.server:
        console.print(f"- the vLLM server, on a GPU of its own: {found.server / _GIB:,.1f} GiB of weights")
    if found.kv_tokens:
        console.print(f"- vLLM's cache has room for about {found.kv_tokens:,} tokens")
    whole = sum(found.host.values()) / _GIB
    if host is not None and whole > host:
        console.print(f"[bold red]Does not fit[/] the host: {whole:,.1f} of {host:,.1f} GiB")
    peak, card = found.phases[found.peak] / _GIB, found.card / _GIB
    console.print(
        f"[bold{'' if found.fits else ' red'}]{'Fits' if found.fits else 'Does not fit'}[/]: {peak:,.1f} of "
        f"{card:,.1f} GiB, in {PARTS[found.peak]}",
        soft_wrap=True,
    )
    if found.change:
        console.print("lower one of these:")
    for line in found.change:
        console.print(f"  {escape(line)}", soft_wrap=True)
