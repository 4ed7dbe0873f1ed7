"""What a run really holds: the peak of torch's allocator on a CPU, as torch's own profiler saw it."""

from __future__ import annotations

from typing import Any

import pytest
from torch.profiler import ProfilerActivity, profile

from videop2r_data.trainer.model import load
from videop2r_data.trainer.run.session import Session
from videop2r_data.trainer.run.train import train
from videop2r_data.trainer.settings.recipe import TrainRecipe


def measured(recipe: TrainRecipe, patch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """Train; the largest sum of bytes allocated and not yet freed, from before the model is loaded.

    Returns:
        those bytes, and the longest prompt and completion of the run, in tokens.
    """
    prompts, completions, kept, load_net, cut = [0], [0], [], load._load_net, Session.cut

    def loaded(*args: Any) -> Any:
        # transformers reads weights in threads that the profiler does not see: a copy stands for them
        net = load_net(*args)
        for weight in net.parameters():
            kept.append(weight.data)
            weight.data = weight.data.clone()
        return net

    def seen(session: Session, inputs: Any, *rest: Any) -> Any:
        prompts.append(int(inputs.starts.max()))
        completions.append(int(inputs.lengths.max()))
        return cut(session, inputs, *rest)

    patch.setattr(load, "_load_net", loaded)
    patch.setattr(Session, "cut", seen)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen_by:
        train(recipe)
    events = [e for e in seen_by.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak, max(prompts), max(completions)
