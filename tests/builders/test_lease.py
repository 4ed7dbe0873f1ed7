"""One process makes the calls of a folder, or one for each share; whoever dies is replaced at once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from videop2r_data.builders.run import Stop
from videop2r_data.builders.workspace import Lease, Shard, take_lease, take_lease_now, take_share
from videop2r_data.errors import BusyError, ConfigError

HOLDER = """
import sys
from pathlib import Path
from videop2r_data.builders.workspace import take_lease_now, take_share
from videop2r_data.builders.workspace import Shard

work, shard = Path(sys.argv[1]), sys.argv[2]
if shard:
    lease = take_share(work, "share", Shard.parse(shard))
else:
    lease = take_lease_now(work, "a build")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(work: Path, shard: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that has the lease until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(work), shard]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def share(work: Path, text: str) -> Lease:
    return take_share(work, f"share {text}", Shard.parse(text))


def test_a_folder_that_is_taken_is_refused_with_the_name_of_its_holder(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(BusyError) as caught:
            take_lease_now(tmp_path, "another build")
        said = str(caught.value)
        assert f"a build (process {process.pid} on {os.uname().nodename}, since " in said
        assert str(tmp_path) in said and "run the same command" in said
        with pytest.raises(BusyError, match="--no-wait"):
            asyncio.run(take_lease(tmp_path, "another build", wait=False, stop=Stop()))


def test_a_killed_holder_leaves_the_folder_free(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with take_lease_now(tmp_path, "the next"), pytest.raises(BusyError):
            take_lease_now(tmp_path, "one more")
    with holder(tmp_path, "1/2") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        share(tmp_path, "1/2").close()
        take_lease_now(tmp_path, "the next").close()


def test_a_second_build_waits_and_goes_on_when_the_first_has_ended(tmp_path: Path) -> None:
    first, told = take_lease_now(tmp_path, "the first build"), list[str]()

    def tell(text: str) -> None:
        told.append(text)
        first.close()

    with asyncio.run(take_lease(tmp_path, "second", wait=True, stop=Stop(), tell=tell)):
        assert len(told) == 1
        with pytest.raises(BusyError, match="second"):
            take_lease_now(tmp_path, "third")
    assert "the first build (process" in told[0] and "goes on when it has ended" in told[0]


def test_the_wait_ends_with_the_first_signal(tmp_path: Path) -> None:
    stop = Stop()

    async def main() -> None:
        await take_lease(tmp_path, "second", wait=True, stop=stop, tell=lambda _: stop.ask())

    with take_lease_now(tmp_path, "first"), pytest.raises(BusyError, match="stopped while waiting"):
        asyncio.run(main())


def test_each_share_is_the_work_of_one_process(tmp_path: Path) -> None:
    with holder(tmp_path, "2/3") as process:
        with pytest.raises(BusyError, match=f"process {process.pid} on .*each share is the work of one"):
            share(tmp_path, "2/3")
        share(tmp_path, "1/3").close()
        with pytest.raises(BusyError, match="otherwise than into 4"):
            share(tmp_path, "1/4")
        with pytest.raises(BusyError, match=f"share .process {process.pid}"):
            take_lease_now(tmp_path, "a build")
    with (
        take_lease_now(tmp_path, "a build"),
        pytest.raises(BusyError, match="it makes the calls of all shares"),
    ):
        share(tmp_path, "1/3")
    share(tmp_path, "1/4").close()


def test_a_forked_child_does_not_keep_the_lease_of_its_parent(tmp_path: Path) -> None:
    """An engine that forks may live on for a while when its parent was killed."""
    forks = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from videop2r_data.builders.workspace import take_lease_now\n"
        "lease = take_lease_now(Path(sys.argv[1]), 'a build')\n"
        "if os.fork() == 0:\n"
        "    print(os.getpid(), flush=True)\n"  # said by the child: it has let go of the lease by then
        "    time.sleep(60)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", forks, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            with pytest.raises(BusyError):
                take_lease_now(tmp_path, "the next")
            process.kill()
            process.wait()
            os.kill(child, 0)
            take_lease_now(tmp_path, "the next").close()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot take the lease"):
        take_lease_now(tmp_path / "file" / "work", "a build")
