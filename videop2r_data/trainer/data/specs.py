"""What the trainer reads, in a recipe's words. Loads neither torch nor transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from videop2r_data.schemas import DemoSpec, MediaSpec, Model

DEMO = "demo"
"""`DataSpec.source` of the endless synthetic stream."""
_PROMPTS = {"process": "generate-v1", "agnostic": "generate-agnostic-v1"}


class DataSpec(Model):
    """Which examples, in which order, with which frames; one for training, another for held-out questions."""

    source: str = Field(min_length=1)
    """Folder that `p2r-data build` made, one data file (parquet, jsonl, json, also .gz), a Hub id
    (`owner/name`), or `demo`: the endless synthetic stream, drawn in memory."""
    config: Literal["sft", "rl"] = "sft"
    """`sft`: rows with a trace to learn; `rl`: questions alone."""
    split: str = "train"
    """For a Hub id."""
    revision: str | None = None
    """For a Hub id: commit or tag. None: the newest commit, looked up once and recorded in `run.json`."""
    media_root: str = ""
    """Folder that the rows' `path` is relative to. Empty: as `p2r-data build` noted beside its folder."""
    start: int = Field(default=0, ge=0)
    """First row (of the demo stream: first scene). Two specs with disjoint ranges share no example."""
    limit: int | None = Field(default=None, ge=1)
    """Rows from `start` on; None: all of them (the demo stream never ends)."""
    style: Literal["process", "agnostic"] = "process"
    """`process`: learn observation, thought, answer; `agnostic`: thought and answer alone [paper Table 2]."""
    prompt: str = ""
    """Name of a packaged prompt or a file; empty: the one that fits `style`."""
    demo: DemoSpec = DemoSpec(numbered=False, rotated=False)
    """The world of `source: demo`; `rows`, `questions` and `defect_rate` mean nothing to the stream."""
    media: MediaSpec = MediaSpec()
    """Frames and pixel budget: `factor` must be that of the model's processor (patch size * merge size)."""
    shuffle: bool = True
    """A new order each epoch, from the run's seed. Off: the order of the file."""
    tail: Literal["drop", "carry"] = "drop"
    """What becomes of the last examples of an epoch that fill no batch: left out (others each epoch), or
    completed with the first ones of the next epoch."""
    bucket: int = Field(default=0, ge=0)
    """Batches whose examples are sorted by estimated length among themselves, so that a batch holds similar
    lengths and little padding; 0: off."""
    workers: int = Field(default=0, ge=0)
    """Decoder processes of this training process; 0: `media.workers`, else one per core."""
    ahead: int = Field(default=2, ge=1)
    """Batches that are decoded ahead; this bounds the memory of the loader."""

    @field_validator("demo", mode="before")
    @classmethod
    def _as_the_default(cls, value: Any) -> Any:
        """What a recipe leaves unsaid of the world is as in the default here, not as in a build's world."""
        return {"numbered": False, "rotated": False, **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _stream_has_no_files(self) -> Self:
        if self.is_demo and (self.media_root or self.revision):
            raise ValueError("source: demo is drawn in memory: it has no media_root and no revision")
        return self

    @property
    def is_demo(self) -> bool:
        """Whether the examples are the endless synthetic stream."""
        return self.source == DEMO

    @property
    def prompt_name(self) -> str:
        """What `prompts.load_prompt` takes."""
        return self.prompt or _PROMPTS[self.style]

    def folder(self, base: Path) -> Path | None:
        """The local folder or file that `source` names, or None: then it is a Hub id.

        Args:
            base: folder that a relative path starts from.
        """
        path = base / Path(self.source).expanduser()
        return path if path.exists() else None
