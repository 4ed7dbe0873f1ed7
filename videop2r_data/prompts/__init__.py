"""Versioned prompt files, and the one place that reads them.

A prompt file is text in sections, each headed by a line `=== name ===`: `system`, `user`, and for generating
prompts one `hint: <problem type>` for each type. Fields such as `{problem}` are filled in one pass, so that a
field name inside of a question stays text.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import (
    GroupSpec,
    ProblemType,
    Role,
    SegmentSpec,
    Template,
    TraceGrammar,
    default_grammar,
    digest_bytes,
    label_options,
)

__all__ = [
    "Form",
    "Prompt",
    "describe_format",
    "fill",
    "load_form",
    "load_prompt",
    "options_block",
    "packaged_prompts",
    "render_generate",
    "show_options",
]

GENERATE, GENERATE_ANY = "generate-v1", "generate-any-v1"
"""The default prompt of step 1, and the one for traces of any other grammar."""
_HEAD = re.compile(r"^=== ([a-zA-Z][\w: -]*?) ===[ \t]*$", re.MULTILINE)
_FIELD = re.compile(r"\{(problem|options|hint|answer|observation|claims|format|think)\}")
_HINT = "hint: "
_MAX_BYTES = 1 << 20
_HINTS = {kind.value: kind.traits.hint for kind in ProblemType}
_ROLES = {
    "generate": ("problem", "options", "hint", "format"),
    "judge": ("problem", "options", "answer", "observation"),
    "exam": ("problem", "options", "hint", "observation"),
    "reasoning": ("think", "problem", "options", "hint"),
    "claims": ("observation",),
    "faithfulness": ("claims",),
}
# LaTeX has braces too: `\boxed{n}` and `\frac{a}{b}` are text, which the first branch steps over.
_BRACED = re.compile(r"\\[A-Za-z]+(?:\{[^{}\n]{0,80}\})+|\{( *[A-Za-z_][A-Za-z0-9_]{0,40} *)\}")
_OTHER_NAMES = {"question": "problem", "query": "problem", "choices": "options", "reference": "answer"}


class Prompt(NamedTuple):
    """A prompt as it was read.

    Attributes:
        name: name of a packaged prompt, or the path as the recipe gives it.
        system: stable text in front, the same for every call (a server can cache it).
        user: text with fields.
        hints: problem type -> what its answer looks like; empty for judge prompts.
        sha256: of the whole file.
    """

    name: str
    system: str
    user: str
    hints: Mapping[str, str]
    sha256: str


def load_prompt(
    name_or_path: str, *, base: Path | None = None, grammar: TraceGrammar | None = None
) -> Prompt:
    """Read a packaged prompt by its name, or a file.

    Args:
        name_or_path: `generate-v1`, or a path with an ending.
        base: folder that a relative path starts from; None: the current one.
        grammar: what a trace is, for generating prompts: written where the prompt has `{format}`. None: the
            default. For another grammar `generate-any-v1` stands in for the default prompt.

    Raises:
        ConfigError: there is no such prompt, or it is not in sections.
    """
    grammar = grammar or default_grammar()
    if name_or_path == GENERATE and grammar != default_grammar():
        name_or_path = GENERATE_ANY
    packaged = resources.files(__package__) / f"{name_or_path}.txt"
    try:
        if "/" not in name_or_path and packaged.is_file():
            return _formed(_parse(name_or_path, packaged.read_bytes()), grammar)
        path = (base or Path()) / name_or_path
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:  # a pipe or a device may never end
            raise OSError(errno.ENOENT, "no file of at most 1 MiB", str(path))
        return _formed(_parse(name_or_path, path.read_bytes()), grammar)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigError(
            f"no prompt {name_or_path!r}: neither packaged ({', '.join(packaged_prompts())}) nor a file",
            where=str(getattr(error, "filename", None) or name_or_path),
            hint="prompt: <name> or prompt: path/to/file.txt, relative to the recipe",
        ) from None


def _formed(prompt: Prompt, grammar: TraceGrammar) -> Prompt:
    """The prompt with the form of a trace written out; its digest then covers both."""
    if "{format}" not in prompt.user:
        return prompt
    form = describe_format(grammar)
    both = digest_bytes(f"{prompt.sha256}\n{form}".encode())
    return prompt._replace(user=prompt.user.replace("{format}", form), sha256=both)


_ABOUT = {
    Role.PERCEPTION: "everything visible that matters for the question; describe, do not conclude",
    Role.REASONING: "your reasoning from what was seen, step by step",
    Role.ANSWER: "the final answer alone",
    Role.OTHER: "what belongs here",
}


def describe_format(grammar: TraceGrammar) -> str:
    """The form of a trace as a prompt shows it to the model that writes one."""
    lines = []
    for part in grammar.segments:
        if not isinstance(part, GroupSpec):
            lines.append(_show(part))
            continue
        times = f"{part.min} time{'s' * (part.min != 1)} or more" if part.max is None else (
            f"{part.min} to {part.max} times"
        )  # fmt: skip
        lines += [f"[the next {len(part.group)} parts together, {times}:]", *map(_show, part.group)]
        lines.append("[end of what is repeated]")
    return "\n".join(lines)


def _show(spec: SegmentSpec) -> str:
    about = spec.about or _ABOUT[spec.role]
    if spec.holds:
        about = Template(spec.holds).example()
    if spec.fields:
        shown = ", ".join(Template(field).example() for field in spec.fields)
        about += f"; where it refers to a thing, a place or a time, in this form: {shown}"
    if spec.text:
        return f"[free text, if you like: {about}]"
    mark = spec.spellings[0]
    optional = "" if spec.required else " [may be left out]"
    return f"{mark.open}{about}{mark.close}{optional}"


def packaged_prompts() -> list[str]:
    """Names of the prompts in the package."""
    return sorted(
        f.name.removesuffix(".txt") for f in resources.files(__package__).iterdir() if f.name.endswith(".txt")
    )


class Form(NamedTuple):
    """Text that is put behind a prompt, with its name and the sha256 of its file."""

    name: str
    text: str
    sha256: str


@lru_cache(maxsize=8)
def load_form(name: str) -> Form:
    """Read a packaged form of reply."""
    data = (resources.files(__package__) / "forms" / f"{name}.txt").read_bytes()
    return Form(name, data.decode().strip(), digest_bytes(data))


def _parse(name: str, data: bytes) -> Prompt:
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8: {error}", where=name) from None
    before, *parts = _HEAD.split(text)
    heads = parts[::2]
    twice = sorted({head for head in heads if heads.count(head) > 1})
    if twice:
        raise ConfigError(f"sections that stand twice: {', '.join(twice)}", where=name)
    sections = {head: body.strip("\n") for head, body in zip(heads, parts[1::2], strict=True)}
    if "user" not in sections or before.strip():
        raise ConfigError(
            "a prompt file begins with a line `=== system ===` or `=== user ===` and has a user section",
            where=name,
        )
    hints = {head.removeprefix(_HINT): body for head, body in sections.items() if head.startswith(_HINT)}
    unknown = sections.keys() - {"system", "user"} - {_HINT + h for h in hints}
    unknown |= {_HINT + h for h in hints.keys() - {t.value for t in ProblemType}}
    if unknown:
        raise ConfigError(f"unknown sections: {', '.join(sorted(unknown))}", where=name)
    _check_fields(name, sections["user"], hints)
    for section, body in sections.items():
        _check_placeholders(name, section, body, sections["user"])
    return Prompt(name, sections.get("system", ""), sections["user"], hints, digest_bytes(data))


def _role(user: str) -> str:
    """What a prompt is for, told by the fields that it asks for."""
    if "{claims}" in user:
        return "faithfulness"
    if "{think}" in user:
        return "reasoning"
    if "{observation}" in user:
        if "{hint}" in user and "{answer}" not in user:
            return "exam"
        return "judge" if "{problem}" in user or "{answer}" in user else "claims"
    return "generate"


def _check_fields(name: str, user: str, hints: Mapping[str, str]) -> None:
    """Refuse a prompt that would leave out what it has to show."""
    needed = {"generate": ["problem"], "exam": ["problem"], "judge": ["problem", "answer"]}.get(
        _role(user), []
    )
    missing = [field for field in needed + ["hint"] * bool(hints) if f"{{{field}}}" not in user]
    if missing:
        names = ", ".join(f"{{{field}}}" for field in missing)
        raise ConfigError(
            f"the user section has no field {names}",
            where=name,
            hint="a generating prompt has {problem}, {options} and {hint}; "
            "a judge prompt {problem}, {options}, {answer} and {observation}",
        )


def _check_placeholders(name: str, section: str, body: str, user: str) -> None:
    """Refuse braces that look like a field and would go to the model as they stand."""
    role = _role(user)
    known = _ROLES[role] if section == "user" else ()
    for match in _BRACED.finditer(body):
        inner = match.group(1) or ""
        field = inner.strip()
        is_text = inner != field and field not in _ROLES["generate"] + _ROLES["judge"]
        if not field or inner in known or is_text:
            continue
        hint = "only the user section has fields: what stands in the others is the same for every question"
        if section == "user":
            near = _OTHER_NAMES.get(field.lower(), field.lower())
            meant = f"did you mean {{{near}}}? " if near in known else ""
            fields = ", ".join(f"{{{one}}}" for one in known)
            hint = f"{meant}a prompt of this kind ({role}) has {fields}"
            hint += f"; for braces as text write {{ {field} }}"
        raise ConfigError(
            f"the {section} section has {{{inner}}}, which nothing fills in",
            where=f"{name}, line {body.count(chr(10), 0, match.start(1)) + 1} of the section",
            hint=hint,
        )


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Put the fields in, in one pass; a line that holds nothing but an empty field disappears.

    >>> fill("{problem}\\n{options}\\nend", {"problem": "Is {options} text?", "options": ""})
    'Is {options} text?\\nend'
    """
    # Cached by template and by which fields are empty: a build fills one template thousands of times.
    empty = tuple(name for name, value in fields.items() if value == "")
    texts, names = _split(template, empty)
    parts = [texts[0]]
    for name, text in zip(names, texts[1:], strict=True):
        parts += (fields.get(name, f"{{{name}}}"), text)
    return "".join(parts)


@lru_cache(maxsize=64)
def _split(template: str, empty: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts between the fields of a template, and the fields; without the lines of empty ones."""
    gone = {f"{{{name}}}" for name in empty}
    parts = _FIELD.split("\n".join(line for line in template.split("\n") if line not in gone))
    return tuple(parts[::2]), tuple(parts[1::2])


@lru_cache(maxsize=4096)
def show_options(options: tuple[str, ...]) -> tuple[str, ...]:
    """Options as a model sees them: as in the pool if they carry their labels, else labelled A, B, C ...

    >>> show_options(("(A) cat", "(B) dog")), show_options(("cat", "dog"))
    (('(A) cat', '(B) dog'), ('A. cat', 'B. dog'))
    """
    read = label_options(options)
    if all(text == option.strip() for (_, text), option in zip(read, options, strict=True)):
        return tuple(f"{label}. {text}" for label, text in read)
    return options


def options_block(shown: tuple[str, ...]) -> str:
    """The options under their heading; empty if there are none."""
    return "Options:\n" + "\n".join(shown) if shown else ""


@lru_cache(maxsize=4096)
def _options(options: tuple[str, ...]) -> str:
    return options_block(show_options(options))


def render_generate(
    prompt: Prompt,
    *,
    problem: str,
    options: Sequence[str],
    problem_type: ProblemType | str,
    observation: str | None = None,
) -> str:
    """The user message of step 1, or of any prompt that shows a question to be answered.

    Args:
        prompt: a generating prompt.
        problem, options, problem_type: of the question.
        observation: in place of the media, already disarmed, for a prompt that has its field.

    Raises:
        ConfigError: the prompt has hints, but none for this type; or it is of another kind.
    """
    role, wanted = _role(prompt.user), "generate" if observation is None else "exam"
    if role != wanted:
        fields = ", ".join(f"{{{field}}}" for field in _ROLES[wanted])
        raise ConfigError(
            f"a {role} prompt cannot generate"
            if wanted == "generate"
            else f"a {role} prompt is no exam prompt",
            where=prompt.name,
            hint=f"what shows a question to be answered has the fields {fields} and no others",
        )
    kind = str(getattr(problem_type, "value", problem_type))
    hint = prompt.hints.get(kind) or _HINTS.get(kind, "")
    if prompt.hints and not hint:
        raise ConfigError(f"the prompt has no section `=== hint: {kind} ===`", where=prompt.name)
    shown = {"problem": problem, "options": _options(tuple(options)), "hint": hint}
    return fill(prompt.user, shown if observation is None else shown | {"observation": observation})
