"""A store of objects that refuses, cuts off and loses answers while it is a build's work folder."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.proxy import Plan, Proxy
from tests.faults.world import ROWS, World, nothing_lost_nor_paid_again
from tests.s3 import S3

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def between(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The proxy in front of the store, in a thread of its own; PUT meets its faults."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxy = Proxy(s3.port, method="PUT")
    asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(30)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()  # it goes to the store itself
    yield proxy
    asyncio.run_coroutine_threadsafe(proxy.__aexit__(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.mark.parametrize("name", ["status_503", "cut_request", "cut_unanswered"])
def test_a_put_that_fails_is_made_again_and_no_answer_is_lost(
    world: World, between: Proxy, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, cut in the middle, or done without a word: nobody notices, and another machine finds it all."""
    between.plan = Plan(seed=1, faults=(name,), share=1.0, times=1)
    work = ("--work", f"s3://bucket/{name}")
    ended = world.build(world.out, *work)
    assert ended.code == 0, ended.text
    assert between.met[name] >= 3, "lease, parts and what the run left"
    nothing_lost_nor_paid_again(world)
    between.plan = Plan()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-machine"))
    ended = world.build(f"{world.out}-again", *work)
    assert ended.code == 0 and world.server.requests == 2 * ROWS, ended.text
    assert world.digests(f"{world.out}-again") == world.clean
