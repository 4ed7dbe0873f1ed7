"""A Hub on loopback that speaks the protocol of the real `huggingface_hub` and `datasets` clients.

    with HubServer(tmp_path / "hub") as hub:                 # xet=True: large files go to Xet storage in a folder
        HfApi(endpoint=hub.url, token=hub.token) ...

Large files are served as the Hub serves them: `resolve` redirects to another host name with a link that
expires, and that host refuses a request that still carries the token. `hub.fail(...)` breaks requests,
`hub.cut_after` downloads; `hub.hold` lets those of a path wait and then drops them; `hub.ignored` is what a
`.gitignore` names. `hub.seen` lists all requests, `hub.served` and `hub.received` count bytes of large files.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from huggingface_hub import constants

import tests.fakes.hub_endpoints  # noqa: F401 - registers them
from tests.fakes.hub_handler import READ_TOKEN, TOKEN, Fault, Handler
from tests.fakes.hub_repo import Store

__all__ = ["READ_TOKEN", "TOKEN", "HubServer"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut on purpose, or left by its client, is no news."""


class HubServer:
    """The server in a thread of this process."""

    def __init__(self, root: Path, *, xet: bool = False) -> None:
        self.store = Store(root, xet=xet)
        self.token = TOKEN
        self.seen: list[tuple[str, str]] = []
        self.served: Counter[str] = Counter()
        self.received = 0
        self.links = 0
        self.faults: list[Fault] = []
        self.cut_after: list[int] = []
        self.hold = ""
        self.ignored = ""
        self.released = threading.Event()
        handler = type("Bound", (Handler,), {"hub": self})
        self._http = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.cdn = f"http://localhost:{self._http.server_port}/cdn"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        # loopback is there although a test run is told that the network is not
        self._offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, False
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        constants.HF_HUB_OFFLINE = self._offline
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def fail(
        self, method: str, path: str, *, status: int = 0, after: int = 0, times: int = 1, late: bool = False
    ) -> None:
        """Break `times` requests that match, after `after` of them passed; `late`: only their answers."""
        self.faults.append(Fault(method, path, status, after, times, late))

    def environment(self, home: Path) -> dict[str, str]:
        """For a process whose clients are to find this Hub and nothing else."""
        xet = {"HF_HUB_DISABLE_XET": "1"} if self.store.cas is None else {"HF_HUB_DISABLE_XET": "0"}
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": self.token,
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_XET_CACHE": str(home / "xet"),
        } | xet

    @contextmanager
    def recording(self) -> Iterator[list[tuple[str, str]]]:
        """The requests that come in meanwhile."""
        start = len(self.seen)
        found: list[tuple[str, str]] = []
        yield found
        found += self.seen[start:]
