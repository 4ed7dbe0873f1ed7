"""From a recipe's backend settings to what answers a step: a backend, a batch API, a caller with limits."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from functools import partial

from videop2r_data.backends.breaker import Breaker, useless_trace
from videop2r_data.backends.caller import Caller
from videop2r_data.backends.journal import Journal
from videop2r_data.backends.judge_requests import USELESS
from videop2r_data.backends.limiter import AdaptiveLimiter
from videop2r_data.backends.money import Money
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Backend, BackendSpec, BatchBackend, Decides, TraceGrammar, default_grammar

Step = str
"""`generate`, or a judge: `judge` where there is one, else its name, with `/2` ... or `/unsure` behind it."""


def make_backend(spec: BackendSpec, *, demo: Callable[[BackendSpec], Backend] | None = None) -> Backend:
    """The backend that the settings ask for; nothing is loaded or opened before its `start`.

    Args:
        spec: kind, model, address, settings. `schemas.calls.BACKENDS` names the class of each kind.
        demo: makes the `demo` backend; handed in, since the demo world is a room on the same level.

    Raises:
        ConfigError: the settings do not fit the kind.
    """
    makes = spec.declared.makes
    if makes:
        if spec.base_urls:
            from videop2r_data.backends.servers import Servers

            return Servers(spec)
        made: Backend = pkgutil.resolve_name(makes)(spec)
        return made
    if demo is None:
        raise ConfigError(
            f"kind {spec.kind} answers only questions of the demo world",
            hint="use kind openai, vllm, anthropic, gemini or transformers",
        )
    return demo(spec)


def make_batches(spec: BackendSpec) -> BatchBackend:
    """The batch API of a backend; the recipe was checked to name a kind that has one.

    Raises:
        ConfigError: no key in the environment.
    """
    made: BatchBackend = pkgutil.resolve_name(spec.declared.batches)(spec)
    return made


def make_breaker(
    step: Step,
    *,
    decides: Decides = "sufficiency",
    keep_going: bool = False,
    flags: bool = False,
    grammar: TraceGrammar | None = None,
) -> Breaker:
    """The breaker of a step; see `Breaker`.

    `decides` is of a judge; `grammar` is what step 1 writes; None: the default.
    """
    opening = (grammar or default_grammar()).opening
    read = partial(useless_trace, opening=opening) if step == "generate" else USELESS[decides]
    return Breaker(f"the {step} server", read=read, keep_going=keep_going, flags=flags)


def make_caller(
    spec: BackendSpec,
    backend: Backend | None,
    step: Step,
    *,
    journal: Journal,
    money: Money,
    breaker: Breaker,
    concurrency: int | None = None,
    forgive: bool = False,
    tell: Callable[[str], None] | None = None,
    took: Callable[[str, float], None] | None = None,
) -> Caller:
    """The caller of a step.

    Args:
        spec: whom to ask, and within which limits.
        backend: made from `spec`; None: answers come from the journal only.
        step: what is asked.
        journal: where finished calls are kept and found.
        money: the budget.
        breaker: stops the run when the server gives no answer that can be used.
        concurrency: calls in flight at most; None: those of `spec`.
        forgive: ask again what an earlier run was refused, or got an empty reply to.
        tell: is told why a call is tried again, and when.
        took: is told the key of each answered request and how many seconds it took.
    """
    limiter = AdaptiveLimiter(
        concurrency or spec.calls_at_once,
        requests_per_minute=spec.requests_per_minute,
        tokens_per_minute=spec.tokens_per_minute,
        server_wait_s=spec.server_wait_s,
        name=f"the {step} server",
    )
    if backend is not None and hasattr(backend, "on_rate_limits"):
        backend.on_rate_limits = limiter.observe
    if backend is not None and hasattr(backend, "tell"):
        backend.tell = tell
    return Caller(
        backend,
        journal=journal,
        money=money,
        limiter=limiter,
        price=spec.price,
        retries=spec.retries,
        count_tokens=spec.tokens_per_minute is not None,
        breaker=breaker,
        forgive=forgive,
        tell=tell,
        took=took,
    )


def batch_scope(step: Step) -> str:
    """Whose batches of the journal are those of a step; the judge's were there first."""
    return "" if step == "judge" else step
