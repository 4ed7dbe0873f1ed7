"""Pages of figures, written from the recorded runs: RESULTS.md, results/*.md and the table of README.md.

Each `pages/NAME.md.j2` is a Jinja template. It sees `runs` (name -> the run's file), `claims`, and the
filters `number` and `percent`. A figure of a run that was not recorded is "not measured yet"; a figure that a
recorded run does not have is an error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks import suite
from benchmarks.suite import ROOT, Call, Claim, Group, Suite

PAGES = Path(__file__).resolve().parent / "pages"
NOT_YET = "not measured yet"
README = "README.md"
BEGIN = "<!-- figures: python -m benchmarks write -->\n"
END = "<!-- end of the figures -->\n"


class NotMeasured:
    """Any figure of a run that was not recorded, and whatever is worked out from it."""

    def __init__(self, command: str = "") -> None:
        self.command = command
        """How the run is made, which is known beforehand."""

    def __getattr__(self, name: str) -> NotMeasured:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, name: object) -> NotMeasured:
        return self

    def _with(self, *_: object) -> NotMeasured:
        return self

    __call__ = _with

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _with

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return NOT_YET


def number(value: Any, digits: int = 0, unit: str = "") -> str:
    """A figure with its unit.

    >>> number(21305.4, 0, "rows/s"), number(0.1466, 3, "s"), number(NotMeasured())
    ('21,305 rows/s', '0.147 s', 'not measured yet')
    """
    if isinstance(value, NotMeasured):
        return NOT_YET
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value} is not a number")  # no repr: an undefined name says in words what it is
    return f"{value:,.{digits}f} {unit}".rstrip()


def percent(value: Any, digits: int = 0) -> str:
    """A share in percent.

    >>> percent(0.00324, 1)
    '0.3 %'
    """
    return number(value if isinstance(value, NotMeasured) else 100 * value, digits, "%")


class Line(NamedTuple):
    """A claim with what was seen."""

    claim: Claim
    seen: str
    holds: bool | None
    """None: not measured yet."""


def judged(claim: Claim, record: Mapping[str, Any] | None, environment: Environment) -> Line:
    """A claim beside the run that decides it.

    Raises:
        NoFigureError: the recorded run does not have the figure.
    """
    if record is None:
        return Line(claim, NOT_YET, None)
    value = suite.figure(record["figures"], claim.path)
    also = environment.from_string(claim.also).render(figures=record["figures"])
    return Line(claim, claim.shown(value) + (f" ({also})" if also else ""), claim.holds(value))


def environment() -> Environment:
    """Templates with our filters; a name that is not there is an error, and nothing is escaped: not HTML."""
    made = Environment(
        loader=FileSystemLoader(PAGES),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"number": number, "percent": percent}
    return made


def render(found: Suite, records: Mapping[str, Any], readme: str) -> dict[str, str]:
    """Path below the repository -> text, of every page and of README.md, whose text until now is `readme`."""
    made = environment()
    made.globals["runs"] = {
        name: records.get(name) or NotMeasured(Call(name, run).command) for name, run in found.runs.items()
    }
    lines = [judged(claim, records.get(claim.run), made) for claim in found.claims]

    def claims(group: Group) -> list[Line]:
        return [line for line in lines if line.claim.group == group]

    made.globals["claims"] = claims
    texts = {}
    for path in sorted(PAGES.glob("[!_]*.md.j2")):
        # what a template leaves out must not leave holes
        text = re.sub(r"\n{3,}", "\n\n", made.get_template(path.name).render()).strip() + "\n"
        name = path.name.removesuffix(".j2")
        if name == README:
            texts[name] = with_block(readme, text)
        else:
            texts[f"benchmarks/{'' if name == 'RESULTS.md' else 'results/'}{name}"] = text
    return texts


def with_block(text: str, block: str) -> str:
    """A text whose part between the two marks is another one.

    Raises:
        ValueError: a mark is not there exactly once.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"wanted once each: {BEGIN.strip()} and {END.strip()}")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}{block.strip()}\n{END}{rest.split(END)[1]}"


def pages(runs: Path) -> dict[str, str]:
    """All pages as the runs recorded in a folder make them."""
    return render(suite.load(), suite.recorded(runs), (ROOT / README).read_text(encoding="utf-8"))


def differences(made: Mapping[str, str], root: Path = ROOT) -> list[str]:
    """A diff for every page that lies there with another text."""
    found = []
    for name, text in made.items():
        path = root / name
        there = path.read_text(encoding="utf-8") if path.is_file() else ""
        if there != text:
            names = (f"{name} as it is", f"{name} from the runs")
            found.append(
                "\n".join(difflib.unified_diff(there.splitlines(), text.splitlines(), *names, lineterm=""))
            )
    return found


def write(made: Mapping[str, str], root: Path = ROOT) -> list[str]:
    """Write the pages that differ; their names."""
    changed = []
    for name, text in made.items():
        path = root / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(name)
    return changed
