"""The lock: what a build was made of and what it made; nothing in it depends on time, host or order."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from videop2r_data.errors import SourceError
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.calls import Usage
from videop2r_data.schemas.grammar import TraceGrammar, default_grammar
from videop2r_data.schemas.recipe import Recipe
from videop2r_data.schemas.rows import Extra

LOCK_VERSION = 1


class SourceLock(Model):
    """One pool as it was read."""

    name: str
    rows: int = Field(ge=0)
    sha256: str
    """Of the canonical rows, in order."""


class Spent(Model):
    """What the answers of one step took, those that this build's rows rest on; what two rows share counts
    for both."""

    rows: int = Field(default=0, ge=0)
    """Questions that came to this step."""
    calls: int = Field(default=0, ge=0)
    usage: Usage = Usage()
    """Tokens of all calls."""
    usd: float | None = None
    """At the recipe's price; None: it gives none."""

    def __str__(self) -> str:
        """A question's share, for people."""
        if not self.rows:
            return "no question came to it"
        sent = self.usage.input_tokens + self.usage.cache_read_tokens + self.usage.cache_write_tokens
        tokens = f"{sent / self.rows:,.0f} tokens in, {self.usage.output_tokens / self.rows:,.0f} out"
        money = "no price" if self.usd is None else f"${self.usd / self.rows:,.6f}"
        return f"{money} ({self.calls / self.rows:.2f} calls, {tokens}); {self.rows:,} questions came to it"


class StepModel(Model):
    """The models of one step."""

    asked: str
    served: dict[str, int]
    """Model id as reported by the server -> calls that count for this build."""
    spent: Spent | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of a recipe with a list of judges."""


class Ledger(Model):
    """Rows in = kept + rejected + failed."""

    rows_in: int = Field(ge=0)
    kept: int = Field(ge=0)
    rejected: int = Field(ge=0)
    failed: int = Field(ge=0)
    surplus: int = Field(default=0, ge=0)
    """Pool rows behind the one that filled `target`: not part of rows_in."""
    reasons: dict[str, int] = Field(default_factory=dict)
    """`stage/reason` -> rows."""
    table: dict[str, dict[str, int]] = Field(default_factory=dict)
    """data type -> problem type -> kept rows [paper table of the data]."""


class FileLock(Model):
    """One output file."""

    sha256: str
    bytes: int = Field(ge=0)
    rows: int | None = None


class BuildLock(Model):
    """`build.lock.json`."""

    lock: int = LOCK_VERSION
    """Version of this format."""
    recipe: dict[str, Any]
    """The recipe with every default written out."""
    prompts: dict[str, str]
    """Prompt name -> sha256 of its text."""
    sources: list[SourceLock]
    left_out: str = Field(default="", exclude_if=lambda value: not value)
    """sha256 of the ids that the recipe's `leave_out` lists, and of why."""
    models: dict[str, StepModel]
    """Step -> its models."""
    versions: dict[str, str]
    """Packages that can change a byte of the output, and this one."""
    ledger: Ledger
    files: dict[str, FileLock]
    """Path relative to the folder -> digest."""

    @property
    def grammar(self) -> TraceGrammar:
        """What a trace of these rows is made of.

        Raises:
            SourceError: the lock holds no valid grammar.
        """
        said = self.recipe.get("trace")
        try:
            return default_grammar() if said is None else TraceGrammar.model_validate(said)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(("recipe.trace", *map(str, first["loc"])))
            raise SourceError(f"the lock's trace grammar is not valid: {first['msg']}", where=where) from None

    @property
    def extra(self) -> Extra:
        """Columns that not every data set has."""
        try:
            return self.read_recipe().extra
        except ValidationError:
            return Extra(judged=bool(self.recipe.get("judges")))  # `verify` says what is wrong with it

    def read_recipe(self) -> Recipe:
        """The recipe; a check that is younger than the lock stays off, as it was for these rows.

        Raises:
            pydantic.ValidationError: the recipe is not valid.
        """
        recipe = self.recipe
        verify = recipe.get("verify")
        # The default of this check is on: an older lock would reject rows that its build has kept.
        if isinstance(verify, dict) and "observation_leaks" not in verify:
            recipe = recipe | {"verify": verify | {"observation_leaks": False}}
        return Recipe.model_validate(recipe)
