"""Where a build keeps what: the data set, and beside it what is needed to go on or to rebuild."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import orjson

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Recipe


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders of a build.

    Attributes:
        out: the data set; nothing else is ever written there.
        work: journal, demo world and notes of this host; keep it as long as the data set may grow.
        base: folder that the recipe's relative paths start from.
    """

    out: Path
    work: Path
    base: Path

    @classmethod
    def at(cls, out: Path, *, base: Path, work: Path | None = None) -> Workspace:
        """`work` lies beside `out` unless it is given."""
        out = Path(os.path.abspath(out))  # noqa: PTH100 - keeps symbolic links as the user wrote them
        return cls(out, work or out.with_name(f"{out.name}.build"), base)

    @property
    def journal(self) -> Path:
        """Folder of the journal's segments."""
        return self.work / "journal"

    @property
    def demo(self) -> Path:
        """Folder of the demo worlds."""
        return self.work / "demo"

    def embedded(self, source: str) -> Path:
        """Folder of the media that the rows of a source hold: written while its pool is read."""
        return self.work / "embedded" / source

    def check(self) -> None:
        """The data set's folder is replaced as a whole: a journal inside it would be gone with the old one.

        Raises:
            ConfigError: the work folder is the data set's, or in it, or the data set is in the journal.
        """
        out, work = (Path(os.path.realpath(p)) for p in (self.out, self.work))
        if work.is_relative_to(out) or out.is_relative_to(work / "journal"):
            raise ConfigError(
                f"the work folder {work} and the data set {out} must lie apart",
                hint="choose another --work: it keeps the journal, and the data set's folder is replaced",
            )

    def remember(self, recipe: Recipe) -> None:
        """Note where this host keeps the recipe's files, for `reproduce` and `show`.

        Raises:
            ConfigError: the work folder cannot be written.
        """
        note = {"base": str(self.base.resolve()), "recipe": recipe.model_dump(mode="json")}
        part = self.work / f"workspace.json.{os.getpid()}.part"  # another process may note the same just now
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            part.write_bytes(orjson.dumps(note, option=orjson.OPT_INDENT_2))
            part.replace(self.work / "workspace.json")
        except OSError as error:
            raise ConfigError(
                f"cannot write to the work folder: {error}",
                where=str(self.work),
                hint="choose another with --work, or free some space",
            ) from None

    @classmethod
    def of(cls, out: Path, *, work: Path | None = None, base: Path | None = None) -> Workspace:
        """The workspace of a data set that was built here.

        Raises:
            ConfigError: its work folder is gone, or does not say where the recipe's files lie.
        """
        found = cls.at(out, base=base or Path.cwd(), work=work)
        if not found.out.is_dir():
            raise ConfigError(
                "no such data set", where=str(found.out), hint="name the folder that p2r-data build wrote"
            )
        if not found.journal.is_dir():
            raise ConfigError(
                "there is no work folder for this data set",
                where=str(found.work),
                hint="name it with --work: it holds the journal",
            )
        return found if base is not None else cls(found.out, found.work, found._noted_base())

    def _noted_base(self) -> Path:
        note = self.work / "workspace.json"
        try:
            return Path(orjson.loads(note.read_bytes())["base"])
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise ConfigError(
                f"the work folder does not say where the recipe's files lie: {error}",
                where=str(note),
                hint="name the folder of the recipe with --base",
            ) from None
