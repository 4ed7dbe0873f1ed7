"""How many doors a reader opens: what a demo build enters, and how the modules hang together.

    python scripts/main_path.py [--json] [--max-modules N --max-classes N --max-chain N] [--root CHECKOUT]

**Entered**, traced: `p2r-data build` of the demo recipe runs in a process of its own, with a profile function
in every thread of it and of every process that it starts (the decoders).

- A *module* is entered when a function of it runs. What runs while modules are imported does not count.
- A *class* is entered when a method of it runs (of an inherited method the class that defines it).
- A *record* only holds data: no method of it runs, but an instance is made by an `__init__` (also one that
  dataclass, NamedTuple or pydantic wrote) or handed to a function of the package, perhaps inside another.
- What the decoders alone enter, and the cards' room, is told apart and not counted: the build calls that room
  to write a card when the Parquet files are there.

**Hanging together**, read from the source: the longest chain of imports between modules of the package, and
circles. Imports at module level count, those inside functions or under `if TYPE_CHECKING` do not. A name that
comes from a package counts as an import of the module that defines it. Modules of a circle count one each.

**Sizes**: lines of the modules; comments per 100 lines of code (lines neither empty nor of a docstring).
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import tokenize
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PACKAGE = "videop2r_data"
MOST_FAILED = 20
"""Rows of the demo build that may fail: it plants broken clips among its 240."""


# The tracer. It runs in the traced processes, before anything else is imported.


class Tracer:
    """Sends a line for each module and class of the package when it is first entered.

    Lines go through a pipe, each at once: a decoder may not write files, and may be killed at any time.
    """

    def __init__(self, pipe: str) -> None:
        self.pipe = os.open(pipe, os.O_WRONLY)
        self.seen: set[str] = set()
        self.codes: set[CodeType] = set()
        self.types: set[type] = set()

    def start(self) -> None:
        """Trace this thread and those that begin later."""
        threading.setprofile(self.profile)
        sys.setprofile(self.profile)

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """A profile function for `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or code in self.codes:
            return
        if f"{os.sep}{PACKAGE}{os.sep}" in code.co_filename:
            if code.co_flags & CO_OPTIMIZED and not _importing(frame):  # a function, no body of a class
                self.codes.add(code)
                self.function(frame, code)
        elif code.co_name in ("__init__", "__new__") and code.co_argcount:
            # one function of pydantic makes instances of many classes: it is looked at each time
            self.instance(frame.f_locals.get(code.co_varnames[0]), frame)
        else:
            self.codes.add(code)

    def function(self, frame: FrameType, code: CodeType) -> None:
        """A function of the package runs: its module, its class, and those of its arguments."""
        module = frame.f_globals.get("__name__", "?")
        self.write("module", frame.f_globals["__spec__"].name if module == "__main__" else module)
        parts = code.co_qualname.split(".<locals>")[0].split(".")
        if len(parts) > 1:
            self.write("class", f"{module}.{'.'.join(parts[:-1])}")
        for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
            self.instance(frame.f_locals.get(name), frame)

    def instance(self, value: object, frame: FrameType, depth: int = 0) -> None:
        """An instance of a class of the package, and those that it holds."""
        kind = type(value)
        if isinstance(value, list | tuple | dict):
            parts = list(value.values() if isinstance(value, dict) else value)[:3]
        elif kind.__module__.startswith(PACKAGE) and kind not in self.types and not _importing(frame):
            self.types.add(kind)
            self.write("record", f"{kind.__module__}.{kind.__qualname__}")
            slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
            parts = [getattr(value, name, None) for name in (*slots, *getattr(value, "__dict__", ()))]
        else:
            return
        for part in parts if depth < 5 else ():
            self.instance(part, frame, depth + 1)

    def write(self, what: str, name: str) -> None:
        """One line, once."""
        line = f"{os.getpid()} {what} {name}\n"
        if line not in self.seen and "<" not in name:
            self.seen.add(line)
            os.write(self.pipe, line.encode())


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def begin(pipe: str) -> None:
    """What `sitecustomize` calls in a traced process."""
    Tracer(pipe).start()


# What a build enters.


@dataclass(frozen=True)
class Entered:
    """Modules and classes, of the build's own process and of the decoders alone."""

    modules: list[str]
    classes: list[str]
    decoder_modules: list[str]
    decoder_classes: list[str]
    card_modules: list[str]
    card_classes: list[str]
    records: list[str]


def trace_build(root: Path) -> Entered:
    """Build the demo data set with the package in `root` and say what ran.

    Raises:
        SystemExit: the build failed.
    """
    with tempfile.TemporaryDirectory(prefix="main-path-") as name:
        work, pipe = Path(name), f"{name}/pipe"
        os.mkfifo(pipe)
        # every Python process imports this first, the decoders too, which get no environment but PYTHONPATH
        start = f"import main_path\n\nmain_path.begin({pipe!r})\n"
        (work / "sitecustomize.py").write_text(start, encoding="utf-8")
        paths = [name, str(Path(__file__).resolve().parent), str(root)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", f"{PACKAGE}.cli", "build", "--out", str(work / "demo"), "--json"]
        child = subprocess.Popen(
            command, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with ThreadPoolExecutor(1) as pool, open(pipe, "r+b", buffering=0) as both:  # noqa: PTH123
            reader = pool.submit(_read_lines, both)
            out, err = child.communicate()
            both.write(b"END\n")
            lines = reader.result()
        if child.returncode:
            raise SystemExit(f"the build failed with {child.returncode}: {err.decode()}")
        ledger = json.loads(out)["ledger"]
        if ledger["failed"] > MOST_FAILED:
            raise SystemExit(f"{ledger['failed']} rows failed: tracing disturbs the build")
    own = {rest for pid, _, rest in lines if pid == str(child.pid)}
    other = {rest for _, _, rest in lines} - own
    return Entered(
        modules=_names(own, "module", card=False),
        classes=_names(own, "class", card=False),
        decoder_modules=_names(other, "module", card=False),
        decoder_classes=_names(other, "class", card=False),
        card_modules=_names(own, "module", card=True),
        card_classes=_names(own, "class", card=True),
        records=sorted({*_names(own, "record", card=False)} - {*_names(own, "class", card=False)}),
    )


def _read_lines(pipe: io.RawIOBase) -> list[tuple[str, str, str]]:
    """Process, space, and what it entered, until the line `END`."""
    text = b""
    while not text.endswith(b"\nEND\n"):
        text += pipe.read(65_536) or b""
    return [line.partition(" ") for line in text.decode().splitlines()[:-1]]


def _names(lines: Iterable[str], what: str, *, card: bool) -> list[str]:
    found = (line.partition(" ") for line in lines)
    names = sorted({name.removeprefix(f"{PACKAGE}.") for kind, _, name in found if kind == what})
    return [name for name in names if name.startswith("cards.") == card]


# How the modules hang together.


@dataclass
class Module:
    """A module of the package, its imports resolved to modules."""

    name: str
    path: Path
    tree: ast.Module
    imports: set[str] = field(default_factory=set)


class Package:
    """Every module of a package and what imports what.

    Args:
        root: folder that holds the package.
    """

    def __init__(self, root: Path) -> None:
        self.modules: dict[str, Module] = {}
        for path in sorted((root / PACKAGE).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.modules[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
        for module in self.modules.values():
            module.imports = set(self._imports(module)) - {module.name}

    def _imports(self, module: Module) -> Iterator[str]:
        for node in _at_import(module.tree.body):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name in self.modules)
            elif origin := self._origin(node, module.name, module.path.name == "__init__.py"):
                yield from (found for alias in node.names if (found := self.define(origin, alias.name)))

    def _origin(self, node: ast.ImportFrom, name: str, is_package: bool) -> str:
        """The absolute name of what an import is from; empty if it is of another package."""
        origin = node.module or ""
        if node.level:
            parts = name.split(".")
            parts = parts[: len(parts) - node.level + is_package]
            origin = ".".join([*parts, origin] if origin else parts)
        return origin if origin.split(".")[0] == PACKAGE else ""

    def define(self, origin: str, name: str, depth: int = 0) -> str | None:
        """The module that defines a name which `origin` offers: a submodule, or followed through its door."""
        if f"{origin}.{name}" in self.modules:
            return f"{origin}.{name}"
        if origin not in self.modules or depth > 8:
            return None
        path = self.modules[origin].path
        stub = path.with_suffix(".pyi")
        if path.name == "__init__.py":
            tree = ast.parse(stub.read_text(encoding="utf-8")) if stub.exists() else self.modules[origin].tree
            for node in tree.body:
                names = node.names if isinstance(node, ast.ImportFrom) else []
                for alias in names:
                    if (alias.asname or alias.name) == name and isinstance(node, ast.ImportFrom):
                        inner = self._origin(node, origin, True)
                        return self.define(inner, alias.name, depth + 1) if inner else origin
        return origin

    def circles(self) -> list[list[str]]:
        """Modules that import each other, by Tarjan's strongly connected components."""
        return [sorted(group) for group in self._components() if len(group) > 1]

    def chain(self) -> list[str]:
        """The longest chain of imports, from the importer to the imported."""
        best: dict[str, list[str]] = {}
        for group in self._components():  # what is imported comes first
            onward = {target for name in group for target in self.modules[name].imports} - set(group)
            longest = max((best[target] for target in sorted(onward)), key=len, default=[])
            for name in group:
                best[name] = sorted(group) + longest
        return max(best.values(), key=len, default=[])

    def _components(self) -> list[list[str]]:
        index: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        groups: list[list[str]] = []

        def visit(name: str) -> None:
            """Tarjan's step: number a module, and close its component."""
            index[name] = low[name] = len(index)
            stack.append(name)
            for target in sorted(self.modules[name].imports):
                if target not in index:
                    visit(target)
                    low[name] = min(low[name], low[target])
                elif target in stack:
                    low[name] = min(low[name], index[target])
            if low[name] == index[name]:
                at = stack.index(name)
                groups.append(stack[at:])
                del stack[at:]

        for name in self.modules:
            if name not in index:
                visit(name)
        return groups


def _at_import(body: Iterable[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run when the module is imported."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from _at_import(node.body)
            yield from _at_import(node.orelse)
        elif isinstance(node, ast.Try):
            for part in (node.body, node.orelse, node.finalbody, *(h.body for h in node.handlers)):
                yield from _at_import(part)
        elif isinstance(node, ast.With | ast.ClassDef):
            yield from _at_import(node.body)


# Sizes.


def comments_per_100(modules: Iterable[Module]) -> float:
    """Lines with a comment per 100 lines that are neither empty nor part of a docstring.

    A directive for a tool (`noqa`, `type: ignore`, `fmt:`, `pragma`) is no comment.
    """
    comments = code = 0
    for module in modules:
        text = module.path.read_text(encoding="utf-8")
        strings = {
            line
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        }
        lines = enumerate(text.splitlines(), 1)
        code += sum(bool(line.strip()) and number not in strings for number, line in lines)
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            said = token.string.lstrip("# ")
            directive = said.startswith(("noqa", "type:", "fmt:", "pragma"))
            comments += token.type == tokenize.COMMENT and not directive
    return 100 * comments / code if code else 0.0


def measure(root: Path) -> dict[str, Any]:
    """All figures."""
    package = Package(root)
    lines = [len(m.path.read_text(encoding="utf-8").splitlines()) for m in package.modules.values()]
    entered = trace_build(root)
    return {
        "entered_modules": len(entered.modules),
        "entered_classes": len(entered.classes),
        "chain": len(package.chain()),
        "modules": len(package.modules),
        "lines": sum(lines),
        "median_lines": statistics.median(lines),
        "p90_lines": statistics.quantiles(lines, n=10)[-1],
        "most_lines": max(lines),
        "comments_per_100_lines": round(comments_per_100(package.modules.values()), 1),
        "circles": package.circles(),
        "longest_chain": [name.removeprefix(f"{PACKAGE}.") for name in package.chain()],
        "entered": entered.__dict__,
    }


def show(found: dict[str, Any]) -> None:
    """Print the figures for people."""
    entered = found["entered"]
    for kind in ("modules", "classes"):
        own, decoder, card = (entered[key] for key in (kind, f"decoder_{kind}", f"card_{kind}"))
        print(
            f"{kind} entered: {len(own)}; {len(decoder)} more by the decoders, {len(card)} more for the card"
        )
        for room in sorted({name.partition(".")[0] for name in own + decoder}):
            names = [name for name in own + decoder if name.partition(".")[0] == room]
            print(f"  {room} {len(names)}: {', '.join(name.partition('.')[2] or name for name in names)}")
    print(f"records that only hold data: {len(entered['records'])}")
    print(f"longest chain of imports: {found['chain']}")
    print("  " + " > ".join(found["longest_chain"]))
    print(f"circles: {len(found['circles'])}")
    for circle in found["circles"]:
        print("  " + ", ".join(circle))
    print(
        f"{found['modules']} modules, {found['lines']:,} lines; "
        f"a module: median {found['median_lines']:.0f}, p90 {found['p90_lines']:.0f}, "
        f"max {found['most_lines']}; {found['comments_per_100_lines']} comments per 100 lines of code"
    )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--json", action="store_true")
    for name in ("modules", "classes", "chain"):
        parser.add_argument(f"--max-{name}", type=int, metavar="N")
    args = parser.parse_args()
    found = measure(args.root.resolve())
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)
    limits = {
        "entered_modules": args.max_modules,
        "entered_classes": args.max_classes,
        "chain": args.max_chain,
    }
    over = [name for name, limit in limits.items() if limit is not None and found[name] > limit]
    for name in over:
        print(f"{name}: {found[name]}, at most {limits[name]}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
