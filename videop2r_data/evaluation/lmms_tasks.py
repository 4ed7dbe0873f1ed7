"""Tasks of lmms-eval 0.7 with this package's prompt and reader, for its `--include_path`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from videop2r_data.benchmarks import load_benchmark, packaged_benchmarks
from videop2r_data.builders.sources import BenchmarkSource
from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.lmms_eval import as_json, must_be_new, plain_answer, write
from videop2r_data.prompts import load_prompt, render_generate
from videop2r_data.schemas import BadRow, Benchmark, Sample, SourceSpec
from videop2r_data.validators import read_reply

_PART = re.compile(r"^dataset_name:\s*[\"']?([\w.-]+)", re.MULTILINE)
_TASK = re.compile(r"^task:\s*[\"']?([\w.-]+)", re.MULTILINE)
_YAML = """include: {theirs}
task: {name}
doc_to_text: !function {name}.doc_to_text
process_results: !function {name}.process_results
generation_kwargs: {{max_new_tokens: 4096, temperature: 0, do_sample: false}}
"""
"""Their prompt asks for the letter alone and most tasks stop after 16 tokens: both cut a trace off."""
_MODULE = '''"""Written by p2r-train export-lmms: the answer is read by videop2r-data, graded by lmms-eval."""

from lmms_eval.utils import load_yaml_config

from videop2r_data.evaluation import TaskReader

_THEIRS = load_yaml_config({theirs})["process_results"]
_READER = TaskReader({benchmark}, part={part})


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return _READER.ask(doc)


def process_results(doc, results):
    return _THEIRS(doc, [_READER.answer(doc, text) for text in results])
'''


class TaskReader:
    """Asks the documents of one task of lmms-eval and reads the answers, as an evaluation here does.

    Raises:
        ConfigError: lmms-eval has no task for the benchmark.
    """

    def __init__(self, benchmark: str, *, part: str = "") -> None:
        there = load_benchmark(benchmark).lmms_eval
        if there is None:
            raise ConfigError("lmms-eval has no task for it", where=benchmark)
        spec = SourceSpec(name="lmms-eval", kind="benchmark", benchmark=benchmark, layout=there.layout)
        self._source = BenchmarkSource(spec, base=Path(), media_root=Path(), demo_root=Path())
        self._there, self._part, self._prompt = there, part, load_prompt("generate-v1")

    def sample(self, doc: Mapping[str, Any]) -> Sample:
        """A document as the benchmark's declaration reads it.

        Raises:
            ConfigError: the declaration cannot read it.
        """
        found = self._source.samples_in(doc, part=self._part)
        if len(found) == 1 and isinstance(found[0], Sample):
            return found[0]
        why = found[0].detail if found and isinstance(found[0], BadRow) else f"{len(found)} questions in it"
        raise ConfigError(f"a document that the declaration cannot read: {why}", where=self._source.where)

    def ask(self, doc: Mapping[str, Any]) -> str:
        """The packaged prompt of process-aware traces."""
        sample = self.sample(doc)
        return render_generate(
            self._prompt, problem=sample.problem, options=sample.options, problem_type=sample.problem_type
        )

    def answer(self, doc: Mapping[str, Any], text: str) -> str:
        """The answer of a completion, for lmms-eval's grader (see `plain_answer`)."""
        sample = self.sample(doc)
        found = read_reply(text, problem_type=sample.problem_type, options=sample.options)
        in_words = self._there.in_words(sample.tags)
        return plain_answer(found.answer, sample.problem_type.value, sample.options, in_words=in_words)


def write_tasks(out: Path) -> list[str]:
    """Write a folder for lmms-eval's `--include_path`: its tasks as `p2r_TASK`, with our prompt and reader.

    Returns:
        The names of the tasks.

    Raises:
        ConfigError: lmms-eval is not installed here, has none of these tasks, or `out` holds something.
    """
    found = find_spec("lmms_eval")
    if found is None or not found.submodule_search_locations:
        raise ConfigError(
            "lmms-eval is not installed here",
            hint="install this package beside lmms-eval, and run the command there",
        )
    must_be_new(out)
    theirs = {}
    folder = Path(found.submodule_search_locations[0]) / "tasks"
    for path in sorted(folder.glob("*/*.yaml")):
        text = path.read_text("utf-8")
        if task := _TASK.search(text):
            config = _PART.search(text)
            theirs[task[1]] = (str(path), config[1] if config else "")
    done = []
    for benchmark in map(load_benchmark, packaged_benchmarks()):
        for named in filter(theirs.__contains__, _tasks(benchmark)):
            (yaml, part), name = theirs[named], f"p2r_{named}"
            values = {"theirs": repr(yaml), "benchmark": repr(benchmark.name), "part": repr(part)}
            write(out / f"{name}.yaml", _YAML.format(name=name, theirs=as_json(yaml)))
            write(out / f"{name}.py", _MODULE.format(**values))
            done.append(name)
    if not done:
        raise ConfigError("this version has none of the tasks that are declared here", where=str(folder))
    return done


def _tasks(benchmark: Benchmark) -> list[str]:
    """Names of all tasks of a benchmark."""
    there = benchmark.lmms_eval
    if there is None:
        return []
    values = product(*(benchmark.expected.by.get(tag, ()) for tag in there.tags))
    return [there.name(dict(zip(there.tags, one, strict=True))) for one in values]
