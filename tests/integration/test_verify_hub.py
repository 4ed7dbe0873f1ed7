"""A Hub id: the real client against a server on loopback that speaks the few calls it makes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest

from tests.builders.release_rows import write_ours

pytestmark = pytest.mark.integration
COMMIT = "c0ffee" + "0" * 34


class Hub(BaseHTTPRequestHandler):
    """One data set, `some/made`, read only."""

    root: ClassVar[Path]
    asked: ClassVar[list[str]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(path)
        prefix = "/api/datasets/some/made"
        if path in (prefix, f"{prefix}/revision/v1", f"{prefix}/revision/{COMMIT}"):
            names = [p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file()]
            info = {"id": "some/made", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        elif path.startswith(f"{prefix}/tree/{COMMIT}"):
            tree = [
                {
                    "type": "file",
                    "path": p.relative_to(self.root).as_posix(),
                    "size": p.stat().st_size,
                    "oid": "0" * 40,
                }
                for p in self.root.rglob("*")
                if p.is_file()
            ]
            self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        elif path.startswith(f"/datasets/some/made/resolve/{COMMIT}/"):
            file = self.root / path.split(COMMIT + "/", 1)[1]
            data = file.read_bytes()
            etag = hashlib.sha256(data).hexdigest()
            self._send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, type[Hub]]]:
    class Mine(Hub):
        root = write_ours(tmp_path / "remote")
        asked: ClassVar[list[str]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Mine
    server.shutdown()
    thread.join()
    server.server_close()


def verify(endpoint: str, home: Path, *arguments: str) -> tuple[int, str, str]:
    command = [str(Path(sys.executable).parent / "p2r-data"), "verify", *arguments]
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=home, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_hub_id_is_verified_at_its_commit(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    endpoint, server = hub
    home = tmp_path / "home"
    home.mkdir()
    (server.root / "clips").mkdir()
    (server.root / "clips/0.mp4").write_bytes(b"not wanted")
    code, out, err = verify(endpoint, home, "some/made", "--revision", "v1", "--json")
    assert code == 0, out + err
    report = json.loads(out)
    assert report["revision"] == COMMIT
    assert report["configs"] == {"sft": 6, "rl": 9, "rejected": 5}
    codes = {finding["code"] for finding in report["findings"]}
    assert codes <= {"not_as_written"}, "its card was made by hand: a warning"
    assert not any(path.endswith(".mp4") for path in server.asked)


def test_an_id_that_the_hub_does_not_know(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    code, out, err = verify(hub[0], tmp_path, "some/other")
    assert (code, out) == (1, "")
    assert "cannot get the data set from the Hub" in err
    assert "Traceback" not in err
