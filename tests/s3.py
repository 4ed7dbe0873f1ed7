"""S3-compatible storage on loopback: a real server, which can be taken away and brought back."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import held

SECRET = "planted-secret-0123456789abcdefghijklmnop"


class S3:
    """A server that can be taken away and brought back, with what it holds."""

    def __init__(self) -> None:
        server: Any = pytest.importorskip("moto.server")
        self._new: Callable[[int], Any] = lambda port: server.ThreadedMotoServer(
            "127.0.0.1", port=port, verbose=False
        )
        self._server = self._new(0)
        self._server.start()
        host, self.port = self._server.get_host_and_port()
        self.endpoint = f"http://{host}:{self.port}"

    def away(self, seconds: float) -> threading.Thread:
        """End it now, and start it again."""
        self._server.stop()

        def back() -> None:
            """After a while."""
            with held(self.port):
                time.sleep(seconds)
                self._server = self._new(self.port)
                self._server.start()

        thread = threading.Thread(target=back)
        thread.start()
        return thread

    def stop(self) -> None:
        """End it."""
        self._server.stop()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3]:
    """A server, and an environment whose keys and bucket are its own."""
    s3fs = pytest.importorskip("s3fs")
    found = S3()
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    s3fs.S3FileSystem.clear_instance_cache()  # of an earlier server
    s3fs.S3FileSystem(use_listings_cache=False).makedirs("bucket", exist_ok=True)
    yield found
    found.stop()
