"""What stands in for the `vllm` program: takes its options, answers as the fake server does.

    vllm serve MODEL --host H --port P --served-model-name NAME [--max-num-seqs N] [--die-after S] [--never]

It notes its arguments, its GPUs and its process ids in the folder `P2R_FAKE_VLLM`, and starts a child that
outlives it unless somebody ends both, as an engine does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.fakes.openai_server import FakeServer


async def serve(options: argparse.Namespace) -> None:
    if options.fail:
        print("\x1b[31mRuntimeError: CUDA out of memory\x1b[0m", file=sys.stderr)
        raise SystemExit(7)
    await asyncio.sleep(options.load)
    async with FakeServer(port=options.port, latency=0.02, model=options.served_model_name) as server:
        print(f"serving {options.model}", flush=True)
        if options.die_after is not None:
            while server.requests < options.die_after:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.005)
            os._exit(1)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("serve")
    parser.add_argument("model")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name")
    parser.add_argument("--trust-request-mm-kwargs", action="store_true")
    parser.add_argument("--tensor-parallel-size", type=int)
    parser.add_argument("--load", type=float, default=0.0)
    parser.add_argument("--die-after", type=int)
    parser.add_argument("--fail", action="store_true")
    options = parser.parse_args()
    child = subprocess.Popen(["sleep", "600"])
    note = {
        "arguments": sys.argv[1:],
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "port": options.port,
        "pids": [os.getppid(), os.getpid(), child.pid],
    }
    folder = Path(os.environ["P2R_FAKE_VLLM"])
    written = folder.parent / f"note-{os.getpid()}"
    written.write_text(json.dumps(note))
    written.replace(folder / f"{os.getpid()}.json")  # whoever looks finds all of it or nothing
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()
