"""The end of a run: a last checkpoint, and the model as others load it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from videop2r_data.trainer.model.unwrap import adapted, bare
from videop2r_data.trainer.run.checkpoint import save_folder
from videop2r_data.trainer.run.identity import update_run

if TYPE_CHECKING:
    from videop2r_data.trainer.run.session import Session

FINAL = "final"


def finish(session: Session) -> bool:
    """Save the last checkpoint; a complete run also gets `final/`.

    Returns:
        whether the run is complete.
    """
    done = session.steps_done
    if session.checkpoints.saved != done:
        session.checkpoints.save(done)
    complete = done == session.steps
    if complete:
        save_final(session, session.folder / FINAL)
    if session.accelerator.is_main_process:
        update_run(
            session.folder, steps_done=done, steps=session.steps, complete=complete, skipped=session.skipped
        )
    session.accelerator.wait_for_everyone()
    return complete


def save_final(session: Session, folder: Path) -> None:
    """Weights and processor for `from_pretrained`; adapters are merged into the weights and kept beside them.

    Every process must call it: gathered weights (FSDP, ZeRO-3) come from all of them.
    """
    accelerator = session.accelerator
    state: dict[str, Any] = accelerator.get_state_dict(session.engine.model)
    if accelerator.is_main_process:
        save_folder(folder, lambda draft: _write(session, state, draft))
    accelerator.wait_for_everyone()


def _write(session: Session, state: dict[str, Any], draft: Path) -> None:
    net = bare(session.engine.model)
    peft = adapted(session.policy.net)
    if peft is not None:
        peft.save_pretrained(draft / "adapter")
        peft.merge_adapter()
        try:
            net.save_pretrained(draft, state_dict=_merged(net))
        finally:
            peft.unmerge_adapter()
    else:
        net.save_pretrained(draft, state_dict={k.removeprefix("net."): v for k, v in state.items()})
    session.policy.processor.save_pretrained(draft)


def _merged(net: Any) -> dict[str, Any]:
    """Weights of a model with merged adapters under the names that they have without."""
    return {
        name.replace(".base_layer.", "."): weight
        for name, weight in net.state_dict().items()
        if ".lora_" not in name
    }
