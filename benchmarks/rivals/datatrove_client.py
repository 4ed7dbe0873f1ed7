"""datatrove: `InferenceRunner` on an endpoint that runs already, behind a `LocalPipelineExecutor`.

python -m benchmarks.rivals.datatrove_client URL BODIES CALLS CONCURRENCY

One task, which runs in this process. Checkpoints are off, which is faster: a run that is killed starts anew.
For an address on this machine, datatrove opens a connection for each request and asks the server to close it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rivals.task import Question, from_command_line, measure


async def rollout(document: Any, generate: Callable[[dict[str, Any]], Awaitable[Any]]) -> str:
    """One answer to one document, whose metadata holds the messages."""
    return str((await generate({"messages": document.metadata["messages"]})).text)


def main() -> None:
    """Ask the questions through datatrove."""
    task = from_command_line()
    from datatrove.data import Document
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter

    config = InferenceConfig(
        server_type="endpoint",
        model_name_or_path="m",
        endpoint_url=task.url.removesuffix("/v1"),
        default_generation_params={"max_tokens": task.max_tokens, "temperature": task.temperature},
        max_concurrent_generations=task.concurrency,
    )

    def run(questions: Sequence[Question]) -> Callable[[], list[str]]:
        folder = Path(tempfile.mkdtemp())
        writer = JsonlWriter(str(folder / "answers"), compression=None)
        runner = InferenceRunner(rollout, config, output_writer=writer)
        asked = [Document("", id=str(i), metadata={"messages": q.messages}) for i, q in enumerate(questions)]
        LocalPipelineExecutor([asked, runner], logging_dir=str(folder / "logs")).run()
        return lambda: list(answers(folder / "answers"))

    measure(task, "datatrove", run)


def answers(folder: Path) -> Iterator[str]:
    """What the writer wrote."""
    for path in folder.iterdir():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield str(json.loads(line)["metadata"]["rollout_results"][0])


if __name__ == "__main__":
    main()
