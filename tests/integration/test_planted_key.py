"""A key that servers echo in every answer is in no file, log, traceback or message of a build."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.anthropic_server import FakeAnthropic
from tests.fakes.openai_server import Call, FakeServer, Reply, default_answer
from tests.integration.test_build import question, rows_of, write_pool
from videop2r_data.backends.answers import scrubbed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
KEY = "sk-planted-0123456789-abcdefghij"
_FORMS = {
    KEY.encode(),
    KEY[::-1].encode(),
    urllib.parse.quote(KEY, safe="").encode(),
    base64.b64encode(KEY.encode()).rstrip(b"="),
    KEY.encode("utf-16-le"),
    KEY.encode().hex().encode(),
}
_ERRORS = (
    json.dumps({"error": {"message": f"Incorrect key {KEY}", "code": KEY}}).encode(),
    f"<html>Authorization: Bearer {KEY}</html>".encode(),
    b"",
)
_BUILD = "from videop2r_data.cli.entry import data; data()"
_QUICK = (
    "from videop2r_data.backends.batches import BatchCaller\n"
    "start = BatchCaller.__init__\n"
    "start.__kwdefaults__ = {**start.__kwdefaults__, 'poll_s': 0.05, 'max_poll_s': 0.1}\n"
    f"{_BUILD}"
)
_BROKEN = (
    "import videop2r_data.backends.openai.client as client\n"
    "def broken(*args, **kwargs): raise RuntimeError('a fault of ours')\n"
    f"client.parse_completion = broken\n{_BUILD}"
)


def script(call: Call) -> Reply | None:
    """Every fifth request fails once in one of several ways, each with the key in its body."""
    n = script.__dict__["n"] = script.__dict__.get("n", 0) + 1
    status = (429, 500, 400, 503)[n // 5 % 4]
    return Reply(status=status, body=_ERRORS[n % 3]) if n % 5 == 0 else None


def echo(call: Call) -> str:
    """An answer as it should be, with the key in it."""
    text = default_answer(call)
    return text.replace("<think>", f"<think>{KEY} ", 1) if "<think>" in text else f"{KEY} {text}"


def settings(server: FakeServer, **judge: Any) -> dict[str, Any]:
    backend = {"kind": "openai", "base_url": server.url, "retries": 2, "api_key_env": "P2R_PLANTED"}
    return {
        "name": "set",
        "sources": [{"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "."}],
        "generate": {"backend": backend | {"model": "g"}},
        "judge": {"backend": judge or backend | {"model": "j"}},
    }


async def build(folder: Path, told: dict[str, Any], *flags: str, code: str = _BUILD, **env: str) -> str:
    """A build in a process of its own; all that it printed."""
    (folder / "r.yaml").write_text(yaml.safe_dump(told))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, "build", str(folder / "r.yaml"), "--out", str(folder / "set"), "-v", *flags,
        env=os.environ | {"P2R_PLANTED": KEY} | env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    (folder / "printed.txt").write_bytes(out)
    return out.decode()


def found_in(*folders: Path) -> list[str]:
    """Files that hold the key in any form."""
    files = [
        path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    ]
    assert len(files) > 3
    return [str(path) for path in files if any(form in path.read_bytes() for form in _FORMS)]


def test_a_key_is_taken_out_of_an_answer_and_a_word_is_not() -> None:
    assert scrubbed(f"a {KEY} b", KEY) == "a *** b" and scrubbed(f"a {KEY} b".encode(), KEY) == b"a *** b"
    assert scrubbed("the box is EMPTY", "EMPTY") == "the box is EMPTY" and scrubbed(b"", "") == b""


def test_in_no_file_and_no_message_of_a_build(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(40)])

    async def main() -> str:
        async with FakeServer(answer=echo, script=script, key=KEY) as server:
            return await build(tmp_path, settings(server))

    printed = asyncio.run(main())
    assert (tmp_path / "set" / "data").is_dir(), printed
    assert found_in(tmp_path) == []
    assert any("***" in row["think"] for row in rows_of(tmp_path / "set", "sft"))


def test_in_no_traceback(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(4)])

    async def main() -> str:
        async with FakeServer(answer=echo, key=KEY) as server:
            return await build(tmp_path, settings(server), code=_BROKEN)

    printed = asyncio.run(main())
    assert "a fault of ours" in printed and "Traceback" in printed
    assert found_in(tmp_path) == []


@pytest.fixture
def session() -> Iterator[Path]:
    """A folder for all that Ray writes; the names of its sockets must stay short."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_in_nothing_that_ray_writes(tmp_path: Path, session: Path) -> None:
    pytest.importorskip("ray")
    write_pool(tmp_path, [question(i) for i in range(20)])

    async def main() -> str:
        async with FakeServer(answer=echo, script=script, key=KEY) as server:
            return await build(tmp_path, settings(server), "--executor", "ray", RAY_TMPDIR=str(session))

    printed = asyncio.run(main())
    assert (tmp_path / "set" / "data").is_dir(), printed
    assert any(session.rglob("*.out")), list(session.rglob("*"))
    assert found_in(tmp_path, session) == []


def test_in_no_object_of_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    write_pool(tmp_path, [question(i) for i in range(20)])
    store = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    store.start()
    told = {"ENDPOINT_URL": "http://{}:{}".format(*store.get_host_and_port()), "DEFAULT_REGION": "us-east-1"}
    for name, value in (told | {"ACCESS_KEY_ID": "planted-id", "SECRET_ACCESS_KEY": KEY[::-1]}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    s3fs.S3FileSystem.clear_instance_cache()
    objects = s3fs.S3FileSystem(use_listings_cache=False)
    objects.makedirs("bucket", exist_ok=True)

    async def main() -> str:
        async with FakeServer(answer=echo, script=script, key=KEY) as server:
            return await build(tmp_path, settings(server), "--work", "s3://bucket/set")

    try:
        printed = asyncio.run(main())
        assert (tmp_path / "set" / "data").is_dir(), printed
        objects.get("bucket", str(tmp_path / "objects"), recursive=True)
        assert list((tmp_path / "objects").rglob("*.jsonl*")), objects.find("bucket")
        assert found_in(tmp_path, tmp_path / "objects") == []
    finally:
        store.stop()


def test_in_no_log_of_a_batch(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(12)])

    def judge(params: dict[str, Any]) -> str:
        return f"{KEY} says so. <judgement>Yes</judgement>"

    async def main() -> str:
        async with (
            FakeServer(answer=echo, script=script, key=KEY) as server,
            FakeAnthropic(answer=judge, polls=2, api_key=KEY) as anthropic,
        ):
            batch = {
                "kind": "anthropic",
                "model": "claude-test-3-7",
                "base_url": anthropic.url,
                "batch": True,
                "api_key_env": "P2R_PLANTED",
            }
            return await build(tmp_path, settings(server, **batch), code=_QUICK)

    printed = asyncio.run(main())
    kept = rows_of(tmp_path / "set", "sft")
    assert kept and all("***" in row["judge_explanation"] for row in kept), printed
    assert found_in(tmp_path) == []
