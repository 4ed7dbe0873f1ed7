"""distilabel: a `Pipeline` of one `ChatGeneration` on `OpenAILLM`.

python -m benchmarks.rivals.distilabel_client URL BODIES CALLS CONCURRENCY

A step asks all questions of a batch at once and waits for the last one, so a batch is as large as what may
be in flight. The step that loads the questions hands over all of them at once: batches then wait for the
asking step, and never that step for the loading one. One replica asks, in a process of its own. The cache of
finished batches is on, as by default, and empty; the raw request and response beside each answer are off.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Sequence

from benchmarks.rivals.task import Question, from_command_line, measure


def main() -> None:
    """Ask the questions through distilabel."""
    task = from_command_line()
    folder = tempfile.mkdtemp()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": folder, "DISTILABEL_CACHE_DIR": folder}
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import ChatGeneration

    # It mutes httpx, which wrote a line for each request; the present openai has httpx2 instead.
    logging.getLogger("httpx2").setLevel(logging.WARNING)

    def run(questions: Sequence[Question]) -> Callable[[], list[str]]:
        """Ask these questions; what comes back reads the answers, in order."""
        with Pipeline(name=f"asks-{len(questions)}", cache_dir=folder) as pipeline:
            sampling = {"max_new_tokens": task.max_tokens, "temperature": task.temperature}
            asked = [{"messages": question.messages} for question in questions]
            asking = ChatGeneration(
                llm=OpenAILLM(model="m", base_url=task.url, api_key="none", generation_kwargs=sampling),
                input_batch_size=task.concurrency,
                add_raw_input=False,
                add_raw_output=False,
            )
            LoadDataFromDicts(data=asked, batch_size=len(asked)) >> asking
        made = pipeline.run()
        return lambda: list(made["default"]["train"]["generation"])

    measure(task, "distilabel", run)


if __name__ == "__main__":
    main()
