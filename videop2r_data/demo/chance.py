"""One named random stream for every choice, so that no choice moves another one."""

from __future__ import annotations

from random import Random


def stream(*name: object) -> Random:
    """A generator that depends on its name only, the same on every machine and Python.

    >>> stream("scene", 7).random() == stream("scene", 7).random()
    True
    """
    return Random("/".join(map(str, name)))  # noqa: S311 (pictures of shapes, not secrets)
