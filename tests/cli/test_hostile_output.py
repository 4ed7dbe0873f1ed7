"""Nothing that a pool or a model writes reaches a terminal, a card or a log as more than text to be seen."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text
from typer.testing import CliRunner

from tests.fakes.openai_server import Call
from tests.integration.test_build import question, run, write_pool
from videop2r_data.cards.card.markdown import cell, prose
from videop2r_data.cli import main
from videop2r_data.cli.common import errors_as_messages
from videop2r_data.cli.terminal import SafeConsole, VisibleFormatter, print_json
from videop2r_data.errors import ConfigError
from videop2r_data.schemas.base import visible

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069]")
EVIL = "a\x1b]8;;http://evil\x07link\x1b]8;;\x07 \x1b[31mred\x1b[2J\x9b31m\x9d0;title\x9c \u202eesrever\u202c \x08\x08 \r over"
OWN = re.compile("\x1b\\[[0-9;?]*[A-Za-z]")
"""Colours and cursor moves of the console itself."""


def test_every_steering_character_gets_a_sign_and_everything_else_stays() -> None:
    assert STEERING.search(visible(EVIL)) is None
    assert visible("\x1b[31m") == "␛[31m" and visible("\x9b") == "\ufffd" and visible("\u202e") == "\ufffd"
    kept = "10² 《红》 👨\u200d👩\u200d👧 می\u200cخواهم \u200fשלום\tа́\n"
    assert visible(kept) is kept


@given(st.text(max_size=80))
def test_any_text_is_visible_and_twice_is_once(text: str) -> None:
    once = visible(text)
    assert STEERING.search(once) is None and visible(once) == once
    once.encode("utf-8")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_sends_nothing_of_a_text(terminal: bool) -> None:
    file = io.StringIO()
    console = SafeConsole(file=file, force_terminal=terminal, width=80)
    console.print(Text(EVIL, style="green"))
    console.print(EVIL, markup=False, soft_wrap=True)
    console.rule(Text(EVIL))
    printed = OWN.sub("", file.getvalue())
    assert STEERING.search(printed) is None and "␛]8;;http://evil" in printed
    assert ("\x1b[" in file.getvalue()) == terminal, "the console's own colours stay"


def test_json_keeps_its_values_and_steers_nothing(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    value = {"text": EVIL, "tag": "\U000e0041", "plain": "é日"}
    print_json(value)
    out = capfdbinary.readouterr().out.decode()
    assert json.loads(out) == value and STEERING.search(out) is None and "é日" in out


def test_errors_tracebacks_and_logs(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), errors_as_messages():
        raise ConfigError(EVIL, where=EVIL, hint=EVIL)
    assert STEERING.search(OWN.sub("", capfd.readouterr().err)) is None
    record = logging.LogRecord("x", logging.INFO, __file__, 1, EVIL, None, None)
    assert STEERING.search(VisibleFormatter("%(message)s").format(record)) is None


def test_cells_and_prose_of_cards() -> None:
    for made in (cell(EVIL), prose(EVIL)):
        assert STEERING.search(made) is None
    assert "\n" not in cell("a\u2028b\x85c\nd")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose questions, options, sources, traces and judge's words are hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [question(i, problem=f"shape {i} {EVIL}?", data_source=EVIL) for i in range(4)]
    rows[3]["solution"] = "<answer>B</answer>"
    write_pool(folder, rows)

    def answer(call: Call) -> str:
        if "BEGIN OBSERVATION" in call.prompt:
            return f"It is stated {EVIL}. <judgement>Yes</judgement>"
        body = f"Based on the question, I need to notice a round thing {EVIL}."
        return (
            f"<observation>{body}</observation> <think>So {EVIL} the answer is A.</think><answer>A</answer>"
        )

    run(folder, answer=answer)
    return folder / "set"


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("show",),
    ("show", "--json"),
    ("stats",),
    ("stats", "--json"),
    ("verify",),
    ("verify", "--json"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_sends_what_a_row_holds(hostile: Path, command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main.app, [command[0], str(hostile), *command[1:]])
    assert result.exit_code == 0, result.output
    assert STEERING.search(OWN.sub("", result.output)) is None
    if command == ("show",):
        assert "␛]8;;http://evil" in result.output


def test_the_card_of_such_a_set(hostile: Path) -> None:
    card = (hostile / "README.md").read_text(encoding="utf-8")
    assert STEERING.search(card) is None and "␛" in card, "the source is named, visibly"


def _calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


def test_there_is_no_other_way_to_print() -> None:
    """Only `cli.terminal` may write to a stream for people."""
    root = Path(main.__file__).parent
    found: list[Any] = []
    for path in sorted(root.glob("*.py")):
        if path.name != "terminal.py":
            calls = _calls(ast.parse(path.read_text(encoding="utf-8")))
            wrong = {"print", "typer.echo", "typer.secho", "Console", "sys.stdout.write", "sys.stderr.write"}
            found += [(path.name, line, name) for name, line in calls if name in wrong]
    assert found == []
