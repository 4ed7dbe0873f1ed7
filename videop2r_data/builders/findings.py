"""What `check` and `doctor` found out about all but the pool: settings, folders, servers, real calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from videop2r_data.errors import P2RError
from videop2r_data.schemas.base import Model

State = Literal["ok", "note", "warning", "error"]
"""`error`: a build would fail or keep nothing; `warning`: it would run, and something is odd or will be dear;
`note`: something was not looked at, and why."""
StepName = Literal["generate", "judge"]


class Finding(Model):
    """One thing that was looked at."""

    about: str
    """`prompts`, `decoder`, `folders`, `disk`, `price`, `key`, `models`, `context`, `call` ..."""
    state: State
    message: str
    hint: str = ""
    """What to do; empty where there is nothing to do."""


class TrialCall(Model):
    """One real call, as a build would make it."""

    data_type: str
    """`video`, `image` or `text`; a judge is shown no media."""
    sample_id: str
    """The question that it was about."""
    frames: int = Field(ge=0)
    input_tokens: int = Field(ge=0)
    """As the server counted, prompt caches included; 0 where it does not say."""
    output_tokens: int = Field(ge=0)
    seconds: float = Field(ge=0)
    usd: float = Field(ge=0)
    """By the recipe's price; 0.0 without one."""
    finish: str
    reply: str
    """The first characters of the answer."""


class ServerLook(Model):
    """One step's model, and what answers for it."""

    step: StepName
    kind: str
    model: str
    address: str
    """Base URL without its query, or empty for a model in this process."""
    listed: list[str] | None = None
    """Ids of the models that the server lists (the first 20); None: not asked, or it keeps no list."""
    context: int | None = None
    """Tokens of prompt and answer together (Anthropic: of the prompt alone), where the server says."""
    needed: int | None = None
    """Tokens that the longest request of this recipe likely takes, its answer included."""
    calls: list[TrialCall] = Field(default_factory=list)
    findings: list[Finding] = Field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing of it would stop a build."""
        return no_error(self.findings)


class DoctorReport(Model):
    """What `p2r-data doctor` found."""

    ok: bool
    """No finding is an error."""
    setup: list[Finding]
    """Settings, libraries, folders."""
    servers: list[ServerLook]
    calls_usd: float = Field(ge=0)
    """What the calls cost by the recipe's prices."""


def no_error(findings: Iterable[Finding]) -> bool:
    """Nothing among them would stop a build."""
    return all(found.state != "error" for found in findings)


def of_error(about: str, error: P2RError, *, hint: str = "") -> Finding:
    """A foreseen error as a finding; its own hint comes first."""
    message = f"{error.where}: {error.message}" if error.where else error.message
    return Finding(about=about, state="error", message=message, hint=error.hint or hint)
