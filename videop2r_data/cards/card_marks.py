"""A card in marked parts: what a program wrote is written anew, what a person wrote around it stays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from videop2r_data.schemas import parse_mapping

NOTE = (
    "<!-- What stands between p2r marks is made from the files of the data set, and made anew by "
    "`p2r-data card` and `p2r-data push`. Write before, between and after them: that stays. -->"
)
_BEGIN, _END = "<!-- p2r:begin {} -->", "<!-- p2r:end {} -->"
_MARK = re.compile(r"<!-- p2r:(begin|end) ([a-z]{1,30}) -->")
_OWN_LINE = re.compile(r"<!-- p2r:card \{[^\n]*\} -->")
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


def split_card(text: str) -> tuple[str, str]:
    """YAML between the `---` lines, and the body; without such lines all of it is body."""
    plain = text.replace("\r\n", "\n")
    found = _FRONT.match(plain)
    return (found[1], plain[found.end() :]) if found else ("", plain)


def old_head(text: str) -> dict[str, Any]:
    """The front matter of an older card; empty: it has none that can be read."""
    from videop2r_data.errors import ConfigError

    try:
        return parse_mapping(split_card(text)[0] or "{}", where="README.md", what="card", valid="")
    except ConfigError:
        return {}


def has_marks(text: str) -> bool:
    """Whether a card tells what in it was made by a program."""
    return _MARK.search(text) is not None


def prose_of(text: str) -> tuple[str, ...]:
    """What a person wrote between the marked parts of a card; empty without marks."""
    body = split_card(text)[1]
    return tuple(piece for name, piece in _pieces(body) if not name) if has_marks(body) else ()


def merged_head(new: dict[str, Any], old: dict[str, Any], ours: frozenset[str], tags: frozenset[str]) -> str:
    """The front matter as YAML: our keys as they are now, a person's own keys and tags kept.

    Args:
        new: what the program says.
        old: of the older card.
        ours: keys that only the program writes.
        tags: tags that only the program writes.
    """
    kept = {key: value for key, value in old.items() if key not in ours}
    added = old.get("tags")
    own = [t for t in added if isinstance(t, str) and t not in tags] if isinstance(added, list) else []
    head = new | {"tags": [*new["tags"], *own]} | kept
    return str(yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000))


def merged_body(parts: Mapping[str, str], old: str, first_line: str = "") -> str:
    """The body with every part as it is now, in the places that an older body gave them.

    A part that the older body lacks comes behind the one that goes before it. A mark without its end reaches
    to the next mark: better to lose a line there than to keep a figure that is no longer true. A body without
    any marks was made before there were any, and is replaced.

    Args:
        parts: name -> Markdown, in order.
        old: the older body, or empty.
        first_line: stands before everything, on a line of its own.
    """
    pieces = _pieces(old) if has_marks(old) else []
    places = [name for name, _ in pieces if name in parts]
    out: list[tuple[str, str]] = [(name, text) for name, text in pieces if name in parts or not name]
    for number, name in enumerate(parts):
        if name not in places:
            before = [other for other in list(parts)[:number] if other in places]
            at = 1 + max((i for i, (n, _) in enumerate(out) if n in before), default=-1)
            out.insert(at, (name, ""))
            places.append(name)
    texts = [
        f"{_BEGIN.format(name)}\n\n{parts[name].strip()}\n\n{_END.format(name)}" if name else text
        for name, text in out
    ]
    head = [line for line in (first_line, NOTE) if line]
    return "\n".join(head) + "\n\n" + "\n\n".join(texts) + "\n"


def part_texts(body: str) -> dict[str, str]:
    """The text of each marked part of a body; of one that stands twice, the first."""
    found: dict[str, list[str]] = {}
    inside: list[str] | None = None
    for line in body.split("\n"):
        mark = _MARK.fullmatch(line.strip())
        if mark is None:
            if inside is not None:
                inside.append(line)
            continue
        inside = None
        if mark[1] == "begin" and mark[2] not in found:
            inside = found[mark[2]] = []
    return {name: "\n".join(lines) for name, lines in found.items()}


def _pieces(body: str) -> list[tuple[str, str]]:
    """(name, text) of the marked parts and, with an empty name, of what a person wrote between them."""
    out: list[tuple[str, str]] = []
    inside, lines, seen = "", [], set()
    for line in [*body.split("\n"), None]:
        mark = _MARK.fullmatch(line.strip()) if line is not None else None
        if line is not None and mark is None:
            if not inside and line.strip() != NOTE and not _OWN_LINE.fullmatch(line.strip()):
                lines.append(line)
            continue
        prose = "\n".join(lines).strip("\n")
        if prose.strip():
            out.append(("", prose))
        lines = []
        if mark is not None and mark[1] == "begin" and mark[2] not in seen:
            out.append((mark[2], ""))
            seen.add(mark[2])
        inside = mark[2] if mark is not None and mark[1] == "begin" else ""
    return out
