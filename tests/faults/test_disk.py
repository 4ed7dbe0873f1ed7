"""A disk that is full and one that cannot be written, as the file system itself says so."""

from __future__ import annotations

import resource
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.world import (
    PASS,
    ROWS,
    UNDER_WAY,
    Ended,
    Gate,
    World,
    finish,
    nothing_lost_nor_paid_again,
    start,
    until,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def own_mounts() -> list[str]:
    """The command in front of another that may mount what it likes, seen by nobody else; empty: not here."""
    for front in (["unshare", "-m"], ["unshare", "-rm"]):
        done = subprocess.run(
            [*front, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
        )
        if done.returncode == 0:
            return front
    return []


needs_mounts = pytest.mark.skipif(
    not shutil.which("unshare") or not own_mounts(), reason="needs mount namespaces"
)


def mounted(script: str) -> Ended:
    """A shell script with mounts of its own."""
    return finish(start([*own_mounts(), "bash", "-c", script]))


def shell(world: World) -> str:
    """The command of a build, for a script."""
    return shlex.join(world.command(world.out))


def at(world: World) -> Path:
    """The folder in which the data set and the work folder of this test stand."""
    folder = world.folder / str(world.story)
    folder.mkdir()
    return folder


@needs_mounts
def test_a_disk_full_of_journal_stops_the_build_and_loses_no_call_that_was_kept(
    world: World, gate: Gate
) -> None:
    """The disk fills up while 16 calls are under way: no more than these are lost, and what was kept stays.

    What the last page of the segment has room for is kept too, and each such answer makes room for another call.
    """
    folder, kept = at(world), world.folder / f"kept-{world.story}"
    told, filled = world.folder / f"told-{world.story}", world.folder / f"filled-{world.story}"
    script = (
        f"mount -t tmpfs -o size=1m none {folder} || exit 99\n{shell(world)} & build=$!\n"
        f"until [ -e {told} ]; do sleep 0.05; done\ncat /dev/zero >{folder}/zeros 2>/dev/null; touch {filled}\n"
        f"wait $build; echo code $?; cp -r {folder}/set.build/. {kept}; ls {folder}\n"
    )
    with start([*own_mounts(), "bash", "-c", script]) as process:
        gate.wait_until_full()
        told.touch()
        until(filled.exists)
        gate.is_open = True
        ended = finish(process)
    assert "code 1" in ended.stdout.splitlines(), ended.text
    assert "No space left on device" in ended.stderr or "the disk is full" in ended.stderr, ended.text
    assert "free some space and run the same command" in ended.text
    assert "set.build" in ended.stdout.splitlines() and "set" not in ended.stdout.splitlines()
    kept.rename(folder / "set.build")
    first, finished = world.server.requests, world.kept_calls(world.out)
    assert first >= PASS + UNDER_WAY and PASS <= finished < 2 * ROWS
    assert first - finished <= UNDER_WAY, "a call went out after the disk was known to be full"
    assert world.build(world.out).code == 0
    assert world.server.requests == first + 2 * ROWS - finished
    nothing_lost_nor_paid_again(world, beyond=first - finished)


@needs_mounts
def test_a_disk_full_of_data_set_leaves_the_calls_and_no_half_set(world: World) -> None:
    """Every call is made and kept, and the folder of the set has no room."""
    folder = at(world)
    ended = mounted(
        f"mkdir {folder}/small && mount -t tmpfs -o size=16k none {folder}/small || exit 99\n"
        f"{shell(world)} --out {folder}/small/set --work {folder}/set.build; echo code $?; ls -A {folder}/small\n"
    )
    assert ended.stdout.splitlines()[-1] == "code 1", ended.text  # nothing stands in the folder
    assert "No space left on device" in ended.stderr, ended.text
    assert world.kept_calls(world.out) == world.server.requests == 2 * ROWS
    assert world.build(world.out).code == 0
    nothing_lost_nor_paid_again(world)


@needs_mounts
def test_a_folder_that_cannot_be_written_is_told_before_the_first_call(world: World) -> None:
    folder = at(world)
    ended = mounted(
        f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} || exit 99\n{shell(world)}\n"
    )
    assert ended.code == 1 and "Read-only file system" in ended.stderr, ended.text
    assert str(folder) in "".join(ended.stderr.split()), ended.text
    assert world.server.requests == 0
    assert world.build(world.out).code == 0
    nothing_lost_nor_paid_again(world)


@needs_mounts
def test_a_work_folder_that_becomes_read_only_stops_no_reader(world: World) -> None:
    """A finished build can be looked at and reproduced where nothing may be written."""
    folder = at(world)
    assert world.build(world.out).code == 0
    program = shlex.join(world.command(world.out)[:3])
    ended = mounted(
        f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} || exit 99\n"
        f"{program} show {folder}/set && {program} reproduce {folder}/set\n"
    )
    assert ended.code == 0, ended.text
    nothing_lost_nor_paid_again(world)


def test_files_that_may_not_grow_stop_the_build_like_a_full_disk(world: World, gate: Gate) -> None:
    """A limit on the size of files (`ulimit -f`), which needs no rights, met while 16 calls are under way."""
    with world.start() as process:
        gate.wait_until_full()
        (segment,) = (world.folder / f"{world.out}.build" / "journal").glob("segment-*.jsonl")
        size = segment.stat().st_size
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))
        gate.is_open = True
        ended = finish(process)
    assert ended.code == 1 and "free some space and run the same command" in ended.text, ended.text
    assert world.kept_calls(world.out) == PASS
    assert world.server.requests == PASS + UNDER_WAY, "a call was made whose answer could not be kept"
    assert world.build(world.out).code == 0
    assert world.server.requests == 2 * ROWS + UNDER_WAY
    nothing_lost_nor_paid_again(world, beyond=UNDER_WAY)
