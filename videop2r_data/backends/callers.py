"""From a recipe's backend settings to a caller: its limits, its patience and its breaker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from videop2r_data.backends.breaker import Breaker, useless_trace, useless_verdict
from videop2r_data.backends.caller import Caller
from videop2r_data.backends.journal import Journal
from videop2r_data.backends.limiter import AdaptiveLimiter
from videop2r_data.backends.money import Money
from videop2r_data.schemas.calls import Backend
from videop2r_data.schemas.recipe import BackendSpec

Step = Literal["generate", "judge"]


def make_breaker(step: Step, *, keep_going: bool = False, flags: bool = False) -> Breaker:
    """The breaker of a step; see `Breaker`."""
    read = useless_trace if step == "generate" else useless_verdict
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
    """
    limiter = AdaptiveLimiter(
        concurrency or spec.concurrency,
        requests_per_minute=spec.requests_per_minute,
        tokens_per_minute=spec.tokens_per_minute,
        server_wait_s=spec.server_wait_s,
        name=f"the {step} server",
    )
    if backend is not None and hasattr(backend, "on_rate_limits"):
        backend.on_rate_limits = limiter.observe
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
    )
