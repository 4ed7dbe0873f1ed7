"""`python -m benchmarks.miniature run` and `... report`, `... qwen`."""

from __future__ import annotations

import sys

from benchmarks.miniature import qwen, report, run

_COMMANDS = {"run": run.main, "report": report.main, "qwen": qwen.main}


def main() -> None:
    """Command line."""
    if len(sys.argv) < 2 or sys.argv[1] not in _COMMANDS:
        sys.exit(f"usage: python -m benchmarks.miniature {{{','.join(_COMMANDS)}}} ...; --help says more")
    _COMMANDS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    main()
