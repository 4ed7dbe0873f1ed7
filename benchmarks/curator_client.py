"""One measurement of bespokelabs-curator; runs in an environment of its own (see `throughput.py`).

python curator_client.py URL SAMPLES CONCURRENCY
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Ask the server for one answer per prompt through curator, and print the seconds."""
    url, samples, concurrency = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
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
        def prompt(self, row: dict[str, Any]) -> str:
            return str(row["prompt"])

        def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
            return {**row, "answer": response}

    asker = Asker(
        model_name="gpt-4o-mini",
        backend="openai",
        backend_params={
            "base_url": f"{url}/chat/completions" if not url.endswith("completions") else url,
            "max_requests_per_minute": 10_000_000,
            "max_tokens_per_minute": 10_000_000_000,
            "max_concurrent_requests": concurrency,
            "require_all_responses": True,
        },
    )
    rows = [{"prompt": f"{i} Look closely. " + "Look closely. " * 80} for i in range(samples)]
    began = time.perf_counter()
    answers = asker(rows)
    seconds = time.perf_counter() - began
    found = getattr(answers, "dataset", answers)
    assert len(found) == samples
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "calls": samples,
                "calls_per_s": samples / seconds,
                "cpu_ms_per_call": 1000 * (usage.ru_utime + usage.ru_stime) / samples,
                "peak_mb": usage.ru_maxrss / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
