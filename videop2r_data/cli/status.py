"""How a build is getting on: `p2r-data status` from another terminal, and figures for Prometheus."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videop2r_data.cli.common import JsonOpt, out_console
from videop2r_data.cli.terminal import print_json
from videop2r_data.errors import ConfigError, first_line

if TYPE_CHECKING:
    from videop2r_data.builders import BuildReport, Progress
    from videop2r_data.cli.build import BuildProgress

FolderArg = Annotated[
    str,
    typer.Argument(
        metavar="DIR|URL", help="The data set's folder, or the work folder of its build (s3://...)."
    ),
]


def status(folder: FolderArg, json: JsonOpt = False) -> None:
    """Tell how a build is getting on, or how its last run ended: rates, yield, money, time left, reasons.

    It reads a small file that the build writes every second, so it may run on another machine that has the
    folder. Exit code 0, whatever the build does.
    """
    from videop2r_data.builders import Workspace, add_up, in_words, news_in_store, read_news

    if "://" in folder:
        news = news_in_store(folder)
    else:
        news = read_news(Path(folder)) or read_news(Workspace.at(Path(folder), base=Path()).work)
    if not news:
        hint = "name the data set's folder, with the work folder beside it, or what --work named"
        raise ConfigError("no build has left news here", where=folder, hint=hint)
    run, shares = add_up(news), news if len(news) > 1 else []
    if json:
        return print_json(run.model_dump() | {"shares": [one.model_dump() for one in shares]})
    age = max(0.0, time.time() - run.at)  # clocks of two machines differ
    rates = {name: f" ({rate:,.0f}/min)" for name, rate in run.per_min.items()}
    made = (f"{name} {count:,}{rates.get(name, '')}" for name, count in run.made.items())
    for words in (
        f"{run.state} (process {run.process}; news {timedelta(seconds=round(age))} old)",
        in_words(run),
        *(f"{one.lease}, {one.state}: {in_words(one)}" for one in shares),
        f"in this run: {', '.join(made) or 'nothing yet'}",
        *([f"waiting: {run.waits_for}"] if run.waits_for else []),
        *([f"last error: {run.last_error}"] if run.last_error else []),
        *(f"{count:>9,}  {name}" for name, count in Counter(run.reasons).most_common()),
    ):
        out_console().print(words, markup=False)


def metrics_text(news: Progress) -> str:
    """Every figure of a run as a gauge; those with names have a label, those that are not known are left out.

    Format: https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    lines = []
    for field, value in news.model_dump(exclude_none=True).items():
        if isinstance(value, dict):
            lines += [f'p2r_{field}{{name="{name}"}} {number!r}\n' for name, number in value.items()]
        elif not isinstance(value, str):
            lines.append(f"p2r_{field} {value!r}\n")
    return "".join(lines)


async def with_metrics(
    running: Coroutine[Any, Any, BuildReport], address: str, progress: BuildProgress
) -> BuildReport:
    """Answer HTTP with the figures of a build at `[HOST]:PORT` as it runs; without HOST this machine alone.

    Raises:
        ConfigError: no such address, or it cannot be had.
    """
    from aiohttp import web

    async def answer(_: web.BaseRequest) -> web.Response:
        form = {"Content-Type": "text/plain; version=0.0.4"}
        return web.Response(text=metrics_text(progress.now()), headers=form)

    host, _, port = address.rpartition(":")
    host, made = host or "127.0.0.1", web.Server(answer, access_log=None)
    where = f"--metrics {address}"
    try:
        if not port.isdecimal() or int(port) > 65_535:
            raise ConfigError("no such address", where=where, hint="give :PORT or HOST:PORT")
        try:
            opened = await asyncio.get_running_loop().create_server(made, host, int(port))
        except OSError as error:
            number = error.errno or 0  # names that are not found have numbers of their own, below 0
            why = os.strerror(number) if number > 0 else first_line(error)
            hint = "choose another port, or an address of this machine; :0 takes any free port"
            raise ConfigError(f"cannot listen there: {why}", where=where, hint=hint) from None
        with closing(opened) as server:
            progress.console.print(f"metrics: http://{host}:{server.sockets[0].getsockname()[1]}/metrics")
            return await running
    finally:
        running.close()
