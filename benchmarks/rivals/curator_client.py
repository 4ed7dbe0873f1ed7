"""bespokelabs-curator: `curator.LLM` on its `openai` backend.

python -m benchmarks.rivals.curator_client URL BODIES CALLS CONCURRENCY

Limits by the minute are far above what a minute brings, so that `max_concurrent_requests` alone holds it
back; its table on the screen is off.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rivals.task import Question, from_command_line, measure


def main() -> None:
    """Ask the questions through curator."""
    task = from_command_line()
    os.environ |= {
        "OPENAI_API_KEY": "none",
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
        "TELEMETRY_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "CURATOR_CACHE_DIR": tempfile.mkdtemp(),
    }
    import litellm

    # the tokenizer file that it would download is in this package
    os.environ["TIKTOKEN_CACHE_DIR"] = str(
        Path(litellm.__file__).parent / "litellm_core_utils" / "tokenizers"
    )
    from bespokelabs import curator

    class Asker(curator.LLM):  # type: ignore[misc]  # it comes without types
        def prompt(self, row: dict[str, Any]) -> Any:
            return row["messages"]

        def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
            return {**row, "answer": response}

    settings = {
        "base_url": f"{task.url}/chat/completions",
        "max_requests_per_minute": 10_000_000,
        "max_tokens_per_minute": 10_000_000_000,
        "max_concurrent_requests": task.concurrency,
        "require_all_responses": True,
    }
    asker = Asker(
        model_name="gpt-4o-mini",
        backend="openai",
        generation_params={"max_tokens": task.max_tokens, "temperature": task.temperature},
        backend_params=settings,
    )

    def run(questions: Sequence[Question]) -> Callable[[], list[str]]:
        made = asker([{"messages": question.messages} for question in questions])
        return lambda: [row["answer"] for row in getattr(made, "dataset", made)]

    measure(task, "bespokelabs-curator", run)


if __name__ == "__main__":
    main()
