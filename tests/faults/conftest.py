"""One server, one proxy and one build without faults for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.world import ROWS, Gate, World, loopback


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world of this file, with `clean`: files of a data set whose calls met no fault."""
    with loopback(tmp_path_factory.mktemp("world")) as world:
        ended = world.build("clean/set")
        assert ended.code == 0, ended.text
        assert world.proxy.given.total() == world.server.requests == 2 * ROWS
        world.clean = world.digests("clean/set")
        yield world


@pytest.fixture
def world(shared: World) -> World:
    """The world with its counts at zero and a folder for this test alone."""
    shared.proxy.reset()
    shared.server.reset()
    shared.server.rule, shared.server.key, shared.server.names_calls = None, None, False
    shared.story += 1
    return shared


@pytest.fixture
def gate(world: World) -> Iterator[Gate]:
    """Holds calls under way; opened at the end, for whoever still waits."""
    gate = Gate(world.proxy)
    yield gate
    gate.is_open = True
