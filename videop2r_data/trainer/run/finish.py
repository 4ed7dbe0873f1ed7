"""The end of a run: a last checkpoint, and the model as others load it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from videop2r_data.trainer.model.save import save_policy
from videop2r_data.trainer.model.unwrap import sharding
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
    """Weights and processor for `from_pretrained`; adapters are merged into the weights.

    Every process must call it: weights that are cut over ranks (FSDP, ZeRO-3) are gathered from all of them;
    adapters are then saved unmerged.
    """
    accelerator, model = session.accelerator, session.engine.model
    whole = sharding(model) is None
    state: dict[str, Any] | None = None
    if not whole:
        gathered = accelerator.get_state_dict(model)
        state = {name.removeprefix("net."): weight for name, weight in gathered.items()}
    if accelerator.is_main_process:
        save_folder(
            folder,
            lambda draft: save_policy(
                session.policy.net, session.policy.processor, draft, merge=whole, state=state
            ),
        )
    accelerator.wait_for_everyone()
