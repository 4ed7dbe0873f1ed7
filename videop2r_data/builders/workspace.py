"""Where a build keeps what: the data set, and beside it what is needed to go on or to rebuild."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import orjson

from videop2r_data.errors import ConfigError
from videop2r_data.schemas.recipe import Recipe


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

    def remember(self, recipe: Recipe) -> None:
        """Note where this host keeps the recipe's files, for `reproduce` and `show`."""
        self.work.mkdir(parents=True, exist_ok=True)
        note = {"base": str(self.base.resolve()), "recipe": recipe.model_dump(mode="json")}
        part = self.work / "workspace.json.part"
        part.write_bytes(orjson.dumps(note, option=orjson.OPT_INDENT_2))
        part.replace(self.work / "workspace.json")

    @classmethod
    def of(cls, out: Path, *, work: Path | None = None, base: Path | None = None) -> Workspace:
        """The workspace of a data set that was built here.

        Raises:
            ConfigError: its work folder is gone.
        """
        found = cls.at(out, base=base or Path.cwd(), work=work)
        note = found.work / "workspace.json"
        if not note.is_file():
            raise ConfigError(
                "there is no work folder for this data set",
                where=str(found.work),
                hint="name it with --work: it holds the journal",
            )
        if base is None:
            found = cls(found.out, found.work, Path(orjson.loads(note.read_bytes())["base"]))
        return found
