"""A page that asks about files below one folder, for one reader: a form, answered with a page."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from html import escape
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qs, quote

from videop2r_data.cards.gallery import SERVED_MEDIA, LoopbackHandler, LoopbackServer, fill_fields
from videop2r_data.errors import ConfigError, MediaError, P2RError
from videop2r_data.evaluation.ask import Asker, Seen, make_question
from videop2r_data.evaluation.ask_page import asset, document, render_answer, shown_text
from videop2r_data.files import kind_by_ending, resolve_media
from videop2r_data.schemas import DataType, ProblemType, Recipe, Sample, TraceGrammar, visible_line

MAX_BODY = 1 << 16
"""Bytes of a form."""
MOST_READ = 1 << 24
"""Bytes of a request that are read to refuse it."""
MOST_FILES = 1000
"""Files that the page offers; any other can be typed."""
FIELDS = ("path", "start", "end", "problem", "options")
"""Of the form, with text in them."""
Ask = Callable[[Sample], Seen]


class AskServer(LoopbackServer):
    """Asks about files below one folder, one question at a time, for whoever knows the address.

    Args:
        ask: asks the model; called in a thread of the server, never twice at once.
        root: folder of the files; no other file can be named, through links neither.
        grammar: of the model's traces.
        model: its name.
        port: 0: any free one.

    Raises:
        ConfigError: the port is taken.
    """

    def __init__(self, ask: Ask, root: Path, grammar: TraceGrammar, model: str, *, port: int = 0) -> None:
        self.ask, self.root, self.grammar, self.model = ask, root, grammar, model
        self.busy = threading.Lock()
        super().__init__(port=port)

    @property
    def handler(self) -> type[LoopbackHandler]:
        """What answers a request."""
        return _AskHandler

    def document(self) -> bytes:
        """The page before the first question."""
        return self.form({}, "")

    def file(self, address: str) -> Path | None:
        """A clip or image below the folder, for the page's player."""
        try:
            found = resolve_media(self.root, address.removeprefix("media/"))
        except MediaError:
            return None
        known = address.startswith("media/") and kind_by_ending(found) is not None
        return found if known and found.is_file() else None

    def form(self, given: Mapping[str, str], below: str) -> bytes:
        """The page: the form as it was filled in, and `below` it HTML."""
        chosen = given.get("type")
        types = "".join(
            f"<option{' selected' if kind.value == chosen else ''}>{kind.value}</option>"
            for kind in ProblemType
            if kind is not ProblemType.MULTIPLE_CHOICE
        )
        files = "".join(f'<option value="{escape(name)}"></option>' for name in offered(self.root))
        fields = {name: shown_text(given.get(name, "")) for name in FIELDS}
        fields |= {"model": shown_text(self.model), "types": types, "files": files}
        body = fill_fields(asset("ask_form.html"), fields) + below
        title = f"Ask {visible_line(self.model)}"
        return document(title, body, media=SERVED_MEDIA, forms="'self'").encode()


async def serve(
    recipe: Recipe,
    root: Path,
    model: str,
    *,
    port: int = 0,
    blind: str = "",
    tell: Callable[[str], None] | None = None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve the page until the task is cancelled; a question under way is then given up.

    Args:
        recipe, blind: as for `Asker`.
        root: folder of the files.
        model: its name on the page.
        port: 0: any free one.
        tell: is told why a call is tried again.
        ready: is told the address of the page.

    Raises:
        ConfigError: the port is taken, or prompt or backend do not fit.
    """
    loop = asyncio.get_running_loop()
    under_way: set[asyncio.Task[object] | None] = set()
    async with Asker(recipe, root, blind=blind, tell=tell) as asker:

        async def answer(sample: Sample) -> Seen:
            under_way.add(asyncio.current_task())
            try:
                return await asker.ask(sample)
            finally:
                under_way.discard(asyncio.current_task())

        def ask(sample: Sample) -> Seen:
            return asyncio.run_coroutine_threadsafe(answer(sample), loop).result()

        with AskServer(ask, root, recipe.trace, model, port=port) as server:
            ready(server.url)
            try:
                await asyncio.to_thread(server.serve_forever)
            finally:
                server.shutdown()
                left = [task for task in under_way if task is not None]
                for task in left:
                    task.cancel()
                await asyncio.gather(*left, return_exceptions=True)


def offered(root: Path) -> list[str]:
    """Clips and images below a folder, the first ones in order; hidden ones are left out."""

    def found() -> Iterator[str]:
        for place, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(place, name)
                if not name.startswith(".") and kind_by_ending(path) is not None:
                    yield path.relative_to(root).as_posix()

    return [name for name in islice(found(), MOST_FILES) if name == visible_line(name)]


class _AskHandler(LoopbackHandler):
    server: AskServer
    # with no-referrer a form's Origin would be null, as that of a foreign page can be
    referrers = "same-origin"

    def do_POST(self) -> None:  # noqa: N802 - the name of the base class
        """One question."""
        length = self.headers.get("Content-Length", "")
        # what is refused is read, too: a connection that is closed over unread bytes is reset, and whoever is
        # still sending sees no answer
        body = self.rfile.read(min(int(length), MOST_READ)) if length.isdecimal() else b""
        self.close_connection = not length.isdecimal() or int(length) > MOST_READ
        given = self._given(body)
        if isinstance(given, int):
            self.refuse(given)
        elif not self.server.busy.acquire(blocking=False):
            told = _wrong("Another question is being answered: send this one again.")
            self.send_page(self.server.form(given, told), status=503)
        else:
            try:
                status, below = self._answered(given)
            finally:
                self.server.busy.release()  # before the page goes out: its reader may ask at once
            self.send_page(self.server.form(given, below), status=status)

    def _given(self, body: bytes) -> dict[str, str] | int:
        """The fields of the form, or the status to refuse it with."""
        if self.address() != "":
            return 404
        host = self.headers.get("Host", "").partition(":")[0]
        if self.headers.get("Origin") != self.server.origin.replace("127.0.0.1", host):
            return 403  # a page of another site
        if not self.headers.get("Content-Length", "").isdecimal() or len(body) > MAX_BODY:
            return 413
        if self.headers.get_content_type() != "application/x-www-form-urlencoded":
            return 415
        try:
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=16)
        except ValueError:
            return 400
        return {name: values[0] for name, values in fields.items()}

    def _answered(self, given: Mapping[str, str]) -> tuple[int, str]:
        """Status, and what stands below the form."""
        try:
            sample = _sample(given)
            seen = self.server.ask(sample)
        except P2RError as error:
            return 422, _wrong(f"{error.message}. {error.hint or ''}")
        player = ""
        if sample.data_type is DataType.VIDEO:
            address = quote(f"media/{sample.path}")
            span = f"#t={sample.start_s or 0:g}" + ("" if sample.end_s is None else f",{sample.end_s:g}")
            player = f'<p><video controls preload="metadata" src="{address}{span}"></video></p>\n'
        return 200, player + render_answer(seen, self.server.grammar)


def _wrong(text: str) -> str:
    return f'<p class="wrong" role="alert">{shown_text(text)}</p>\n'


def _sample(given: Mapping[str, str]) -> Sample:
    """The question of a form.

    Raises:
        ConfigError: a field is missing, or holds something else.
    """
    try:
        start, end = (
            float(given[name]) if given.get(name, "").strip() else None for name in ("start", "end")
        )
        kind = ProblemType(given["type"]) if given.get("type") else None
    except ValueError as error:
        raise ConfigError(f"a field of the form is wrong: {error}") from None
    if not given.get("path"):
        raise ConfigError("no file is named")
    options = [line.strip() for line in given.get("options", "").splitlines() if line.strip()]
    return make_question(
        given["path"], given.get("problem", ""), options=options, problem_type=kind, start_s=start, end_s=end
    )
