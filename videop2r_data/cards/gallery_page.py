"""The page: one HTML document with its style, its script and the rows as inert JSON.

Rows and model texts reach the document as JSON alone, in script elements of a type that no browser runs, with
every `<`, `>` and `&` escaped. The script writes them with `textContent`. A Content-Security-Policy lets this
style and this script run, by their digests, and nothing be fetched but pictures and clips.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from importlib import resources
from typing import Any

import orjson

SCRIPTS = (
    "base.js",
    "data.js",
    "filter.js",
    "marks.js",
    "list.js",
    "facets.js",
    "frames.js",
    "player.js",
    "sample.js",
    "compare.js",
    "keys.js",
    "wire.js",
    "main.js",
)
"""In this order they make one script."""
FILE_MEDIA = "'self' file: data: blob:"
SERVED_MEDIA = "'self' data: blob:"
_ESCAPES = ((b"&", b"\\u0026"), (b"<", b"\\u003c"), (b">", b"\\u003e"))


def inert_json(value: Any) -> str:
    r"""JSON that is plain text wherever it stands in HTML: no tag, comment or entity can begin in it.

    >>> inert_json({"a": "</script>"})
    '{"a":"\\u003c/script\\u003e"}'
    """
    text = orjson.dumps(value)
    for found, written in _ESCAPES:
        text = text.replace(found, written)  # outside of strings JSON has none of these characters
    return text.decode("utf-8")


def policy(style: str, script: str, media: str) -> str:
    """The Content-Security-Policy of the page.

    Args:
        style: text of its one style element.
        script: text of its one script.
        media: where pictures and clips may come from.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            f"img-src {media}",
            f"media-src {media}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def render_page(title: str, head: dict[str, Any], chunks: Sequence[Any], *, served: bool = False) -> str:
    """The whole document; the same text for the same arguments.

    Args:
        title: of the window.
        head: what the list and the filters need, parsed at once.
        chunks: what a row's view needs, in groups that are parsed when they are looked at.
        served: the page is for the server of `--serve`, not for a file.
    """
    style = _asset("style.css")
    script = '"use strict";\n(() => {\n' + "".join(_asset(name) for name in SCRIPTS) + "})();\n"
    blocks = [_block(f"rows-{i}", chunk) for i, chunk in enumerate(chunks)]
    # The script stands before most of the rows: the list is on the screen while they are still being read.
    return _fill(
        _asset("page.html"),
        {
            "policy": html.escape(policy(style, script, SERVED_MEDIA if served else FILE_MEDIA)),
            "title": html.escape(title),
            "style": style,
            "head": _block("head", head),
            "first": "".join(blocks[:1]),
            "script": script,
            "rest": "".join(blocks[1:]),
        },
    )


def _fill(template: str, fields: dict[str, str]) -> str:
    """In one pass, so that a field's name inside of a text stays text."""
    parts = template.split("@@")
    for i in range(1, len(parts), 2):
        parts[i] = fields[parts[i]]
    return "".join(parts)


def _block(name: str, value: Any) -> str:
    return f'<script type="application/json" id="{name}">{inert_json(value)}</script>\n'


def _asset(name: str) -> str:
    return (resources.files(__package__) / "gallery" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
