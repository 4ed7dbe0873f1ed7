"""NVIDIA NeMo Data Designer: `DataDesigner.create` with one `LLMTextColumnConfig` over a seed table.

python -m benchmarks.rivals.designer_client URL BODIES CALLS CONCURRENCY

All rows are one group. Jinja2's own sandbox renders the prompts (it is faster than Data Designer's hardened
one); metrics for Prometheus and the check of the model before the run are off. Its profile of the finished
column wants a tokenizer file from the network and does without where there is none.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence

from benchmarks.rivals.task import Question, from_command_line, measure


def main() -> None:
    """Ask the questions through Data Designer."""
    task = from_command_line()
    folder = tempfile.mkdtemp()
    os.environ |= {"DATA_DESIGNER_HOME": folder, "NEMO_TELEMETRY_ENABLED": "false"}
    import data_designer.config as dd
    import pandas
    from data_designer.interface import DataDesigner

    sampling = dd.ChatCompletionInferenceParams(
        max_parallel_requests=task.concurrency, max_tokens=task.max_tokens, temperature=task.temperature
    )
    model = dd.ModelConfig(
        alias="asked", model="m", provider="here", inference_parameters=sampling, skip_health_check=True
    )
    provider = dd.ModelProvider(name="here", endpoint=task.url, api_key="none")
    designer = DataDesigner(artifact_path=folder, model_providers=[provider])
    designer.set_run_config(
        dd.RunConfig(
            buffer_size=len(task.questions),
            jinja_rendering_engine=dd.JinjaRenderingEngine.NATIVE,
            otel_metrics_port=None,
        )
    )

    def run(questions: Sequence[Question]) -> Callable[[], list[str]]:
        """Ask these questions; what comes back reads the answers, in order."""
        seeds = pandas.DataFrame({"system": q.system, "user": q.user} for q in questions)
        config = dd.DataDesignerConfigBuilder(model_configs=[model])
        config.with_seed_dataset(dd.DataFrameSeedSource(df=seeds))
        config.add_column(
            dd.LLMTextColumnConfig(
                name="answer", model_alias="asked", system_prompt="{{ system }}", prompt="{{ user }}"
            )
        )
        made = designer.create(config, num_records=len(questions))
        return lambda: list(made.load_dataset()["answer"])

    measure(task, "data-designer", run)


if __name__ == "__main__":
    main()
