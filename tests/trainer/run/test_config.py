from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.trainer.run import small
from videop2r_data.errors import ConfigError, SourceError
from videop2r_data.schemas import default_grammar, load_grammar
from videop2r_data.trainer.settings.parts import DataSpec, run_grammar
from videop2r_data.trainer.settings.recipe import (
    TrainRecipe,
    accelerate_configs,
    differences,
    list_train_recipes,
    load_train_recipe,
    recipe_yaml,
    train_recipe_text,
)

SFT = """
train: 1
name: a
stage: sft
data: {source: set, config: sft}
model: {model: m, dtype: float32}
steps: 5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", list_train_recipes())
def test_packaged_recipes_are_valid_and_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_train_recipe(name)
    assert recipe.name == name
    assert recipe.title
    again = load_train_recipe(write(tmp_path, recipe_yaml(recipe)))
    assert again == recipe
    assert again.digest == recipe.digest


def test_a_recipe_made_in_python_survives_its_file(tmp_path: Path) -> None:
    for recipe in (small.sft(tmp_path, tmp_path / "o"), small.rl(tmp_path, tmp_path / "o")):
        again = load_train_recipe(write(tmp_path, recipe_yaml(recipe)))
        assert again.digest == recipe.digest
        assert again.data.demo == recipe.data.demo


def test_patience_with_the_judges_server_makes_no_other_run(tmp_path: Path) -> None:
    """A checkpoint of before the setting goes on, and so does one under another patience."""
    recipe = load_train_recipe("paper-7b-rl")
    assert recipe.judging.backend is not None
    backend = recipe.judging.backend.model_copy(update={"server_wait_s": 5.0})
    patient = recipe.model_copy(update={"judging": recipe.judging.model_copy(update={"backend": backend})})
    assert patient.digest == recipe.digest and "server_wait_s" not in str(recipe.identity)


def test_the_papers_figures() -> None:
    sft, rl = load_train_recipe("paper-7b-sft"), load_train_recipe("paper-7b-rl")
    assert (sft.epochs, sft.batch.size, sft.optim.lr, sft.optim.max_grad_norm) == (1, 16, 1e-6, 5.0)
    assert (rl.steps, rl.batch.size * rl.rl.group_size, rl.loss.beta) == (1000, 56, 0.04)
    assert (rl.sampling.max_new_tokens, rl.optim.weight_decay, rl.optim.schedule) == (768, 0.01, "cosine")
    # the public code: linear and without decay in SFT, where it sets neither; rollouts from the likeliest 95 %
    assert (sft.optim.schedule, sft.optim.weight_decay, sft.optim.warmup) == ("linear", 0.0, 0.0)
    assert (rl.sampling.temperature, rl.sampling.top_p) == (1.0, 0.95)
    assert rl.rewards.perception_bounds == (128, 320)
    assert rl.rewards.reasoning_bounds == (320, 512)
    for recipe in (sft, rl):
        assert (recipe.data.media.frames, recipe.data.media.max_pixels) == (16, 128 * 28 * 28)
        assert recipe.data.media.image_max_pixels == 256 * 28 * 28
        assert recipe.model.dtype == "float32"


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_siblings_differ_in_what_they_say_alone(size: str) -> None:
    def of(name: str) -> TrainRecipe:
        return load_train_recipe(f"paper-{size}-{name}")

    named, asked = of("rl").judging.backend, of("rl-open").judging.backend
    assert named is not None and named.kind == "anthropic" and asked is not None
    # nothing of the other kind of server is left: its key would go to a stranger
    assert (asked.kind, asked.model, asked.api_key_env) == (
        "openai",
        "meta-llama/Llama-3.1-70B-Instruct",
        None,
    )
    changed = {line.partition(":")[0] for line in differences(of("rl").identity, of("rl-open").identity)}
    assert {name.rpartition(".")[0] for name in changed} == {"judging.backend"}
    for stage in ("sft", "rl"):
        whole, adapters = of(stage), of(f"{stage}-lora")
        assert adapters.optim.lr == pytest.approx(10 * whole.optim.lr) and adapters.model.lora is not None
        assert adapters.model.lora.alpha == 32
    assert of("sft-lora").model.model == of("sft").model.model
    assert of("rl-lora").model.model == f"runs/{of('sft-lora').name}/final"


def test_a_recipe_extends_another(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "below.yaml").write_text(SFT + "optim: {lr: 0.1, betas: [0.5, 0.6]}\nseed: 3\n")
    (tmp_path / "inner" / "set").mkdir()
    text = "extends: inner/below.yaml\nname: b\nepochs: 2\noptim: {lr: 0.2}\n"
    recipe = load_train_recipe(write(tmp_path, text), flags={"seed": 4})
    assert (recipe.name, recipe.epochs, recipe.steps, recipe.seed) == ("b", 2.0, None, 4)
    assert (recipe.optim.lr, recipe.optim.betas) == (0.2, (0.5, 0.6))
    assert recipe.data.source == str(tmp_path / "inner" / "set")  # relative to the file that says it
    assert "extends:" not in recipe_yaml(recipe) and "extends" not in recipe.identity
    packaged = load_train_recipe(write(tmp_path, "extends: paper-7b-sft\nname: mine\n"))
    assert packaged.digest == load_train_recipe("paper-7b-sft").digest
    for text, words in (
        ("extends: r.yaml", "extends itself"),
        ("extends: nope", "no training recipe 'nope'"),
        ("extends: [a]", "extends: "),
        ("extends: paper-7b-sft\nname: x\noptim: {speed: 1}", r"optim.speed: no such setting.*r.yaml:3"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_train_recipe(write(tmp_path, text))
    with pytest.raises(ValueError, match="extends is for files"):
        TrainRecipe.model_validate({**yaml.safe_load(SFT), "extends": "paper-7b-sft"})


def test_flags_win_over_sets_and_sets_over_the_file(tmp_path: Path) -> None:
    recipe = load_train_recipe(
        write(tmp_path, SFT),
        sets=["optim.lr=1e-5", "trackers=[tensorboard]", "seed=3", "model.lora.rank=8"],
        flags={"seed": 4, "epochs": 2, "steps": None},
    )
    assert recipe.optim.lr == 1e-5
    assert recipe.trackers == ("tensorboard",)
    assert recipe.seed == 4
    assert recipe.model.lora is not None and recipe.model.lora.rank == 8
    assert (recipe.steps, recipe.epochs) == (None, 2)


def test_paths_of_a_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    recipe = load_train_recipe(write(tmp_path, SFT))
    assert recipe.data.source == str(tmp_path / "set")
    assert recipe.model.model == "m"


def test_all_errors_come_at_once(tmp_path: Path) -> None:
    text = SFT.replace("steps: 5", "steps: 0\nbatch: {size: none, micro: 0}\nwhatever: 1")
    with pytest.raises(ConfigError) as error:
        load_train_recipe(write(tmp_path, text))
    message = str(error.value)
    assert "4 error(s)" in message
    for field in ("steps", "batch.size", "batch.micro", "whatever"):
        assert f"  {field}:" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.dtype": "bfloat16"}, "loses updates"),
        ({"epochs": 1.0, "steps": None}, None),
        ({"data.source": "demo", "epochs": 1.0}, "never ends"),
        ({"objective.name": "grpo"}, "stage sft has no objective"),
        ({"data.config": "rl"}, "set data.config: sft"),
        ({"trackers": ["excel"]}, "unknown trackers excel"),
        ({"eval_every": 5}, "belong together"),
        ({"stage": "rl", "data.config": "rl"}, "pays perception"),
        ({"stage": "rl", "judging.kind": "demo", "sampling.temperature": 0}, "nothing to learn"),
        ({"stage": "rl", "judging.kind": "demo", "rl.minibatches": 3}, "does not divide"),
        ({"stage": "rl", "judging.kind": "demo", "data.style": "agnostic"}, "pays for observations"),
        ({"stage": "rl", "judging.kind": "demo", "rl.ahead": True}, "draws with those very weights"),
        ({"stage": "rl", "objective.name": "grpo", "rl.ahead": True, "sampling.backend": "vllm"}, "the GPU"),
        (
            {"stage": "rl", "objective.name": "grpo", "rl.ahead": True, "sampling.backend": "vllm-server"},
            None,
        ),
        (
            {
                "stage": "rl",
                "objective.name": "grpo",
                "loss.correction": "tis",
                "sampling": {"backend": "vllm", "temperature": 0.9, "top_p": 0.95},
            },
            "whole vocabulary",
        ),
        ({"stage": "rl", "objective.name": "grpo", "data.style": "agnostic"}, None),
        ({"model.dtype": "bfloat16", "model.lora.rank": 4}, None),
        ({"stage": "rl", "data.trace": "think-answer"}, None),  # nobody sees: no judge is needed
        ({"stage": "rl", "data.trace": "vision-sr1"}, "pays perception"),
        ({"stage": "rl", "data.trace": "think-answer", "objective.name": "no-reasoning"}, "pays nothing"),
        ({"data.trace": "think-answer", "data.style": "agnostic"}, "declare a trace without perception"),
        ({"data.trace": "nope"}, "no trace grammar 'nope'"),
        (
            {"stage": "rl", "data.trace": "think-answer", "rewards.bounds": {"plan": [1, 2]}},
            "streams of the trace are reasoning",
        ),
        (
            {"stage": "rl", "data.trace": "think-answer", "rewards.bounds": {"reasoning": [3, 2]}},
            "low <= high",
        ),
    ],
)
def test_settings_that_do_not_fit_each_other(
    change: dict[str, object], words: str | None, tmp_path: Path
) -> None:
    if words is None:
        load_train_recipe(write(tmp_path, SFT), flags=change)
        return
    with pytest.raises(ConfigError, match=words):
        load_train_recipe(write(tmp_path, SFT), flags=change)


OWN = """
name: own
segments:
  - {name: see, role: perception, tag: see, stream: STREAM}
  - {name: answer, role: answer, boxed: true}
"""


def test_a_trace_is_a_name_a_file_beside_the_recipe_or_what_the_data_say(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN.replace("STREAM", "eyes"))
    (tmp_path / "vision-sr1").mkdir()  # a data set that is called as a grammar
    path = write(tmp_path, SFT)
    named = load_train_recipe(path, flags={"data.trace": "vision-sr1"})
    assert named.data.grammar == load_grammar("vision-sr1")
    written = SFT.replace("{source", "{trace: own.yaml, source")
    own = load_train_recipe(write(tmp_path, written))
    assert own.data.grammar.streams == ("eyes", "reasoning")
    again = tmp_path / "again.yaml"
    again.write_text(recipe_yaml(own))
    assert load_train_recipe(again).digest == own.digest
    (tmp_path / "other.yaml").write_text(OWN.replace("STREAM", "sum"))
    with pytest.raises(ConfigError, match="sum name other metrics"):
        load_train_recipe(write(tmp_path, written.replace("own.yaml", "other.yaml")))


def test_the_grammar_comes_from_the_lock_of_the_data(tmp_path: Path) -> None:
    assert DataSpec(source=str(tmp_path)).grammar == default_grammar()
    form = load_grammar("video-thinker")
    lock = {
        "lock": 1, "recipe": {"trace": form.model_dump(mode="json")}, "prompts": {}, "sources": [], "models": {},
        "versions": {}, "ledger": {"rows_in": 0, "kept": 0, "rejected": 0, "failed": 0}, "files": {},
    }  # fmt: skip
    (tmp_path / "build.lock.json").write_text(json.dumps(lock))
    spec = DataSpec(source=str(tmp_path))
    assert spec.grammar == form and "trace" not in spec.model_dump()
    assert DataSpec(source=str(tmp_path), trace="videop2r").grammar == default_grammar()
    lock["recipe"] = {"trace": {"name": "x", "segments": []}}
    (tmp_path / "build.lock.json").write_text(json.dumps(lock))
    with pytest.raises(SourceError, match="grammar is not valid"):
        DataSpec(source=str(tmp_path)).grammar  # noqa: B018 - the lock is read here


def test_a_run_without_a_grammar_of_its_own_has_the_default(tmp_path: Path) -> None:
    assert run_grammar(tmp_path) == default_grammar()
    for text in ("[", "[]", '{"data": 1}', '{"data": {}}'):
        (tmp_path / "run.json").write_text(text)
        assert run_grammar(tmp_path) == default_grammar()


def test_unknown_names_and_hostile_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no training recipe 'nope'"):
        load_train_recipe("nope")
    with pytest.raises(ConfigError, match="not YAML"):
        load_train_recipe(write(tmp_path, "a: !!python/object/apply:os.system [id]"))
    with pytest.raises(ConfigError, match="stands twice"):
        load_train_recipe(write(tmp_path, "a: 1\na: 2"))
    with pytest.raises(ConfigError, match="mapping"):
        load_train_recipe(write(tmp_path, "- 1"))
    with pytest.raises(ConfigError, match="write key"):
        load_train_recipe(write(tmp_path, SFT), sets=["seed"])
    with pytest.raises(ConfigError, match="steps holds no settings"):
        load_train_recipe(write(tmp_path, SFT), sets=["steps.x=1"])


def test_what_changes_no_weight_changes_no_digest(tmp_path: Path) -> None:
    base = load_train_recipe(write(tmp_path, SFT))
    same = load_train_recipe(
        write(tmp_path, SFT),
        flags={"output": "o", "save.every": 7, "batch.micro": 4, "data.workers": 3, "name": "b"},
    )
    other = load_train_recipe(write(tmp_path, SFT), flags={"optim.lr": 0.5})
    assert same.digest == base.digest
    assert other.digest != base.digest


def test_reading_recipes_loads_no_torch() -> None:
    code = (
        "import sys; from videop2r_data.trainer.settings.recipe import load_train_recipe as load\n"
        "from videop2r_data.trainer.settings.recipe import list_train_recipes as names\n"
        "[load(n) for n in names()]\n"
        "print(sorted({'torch', 'transformers', 'accelerate', 'datasets', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_schema_of_a_recipe_is_json() -> None:
    assert "properties" in TrainRecipe.model_json_schema()


def test_unknown_packaged_recipe() -> None:
    with pytest.raises(ConfigError, match="tiny-sft"):
        train_recipe_text("nope")


def test_accelerate_reads_its_configs() -> None:
    from accelerate.commands.config import load_config_from_file

    found = {name: load_config_from_file(str(path)) for name, path in accelerate_configs().items()}
    assert {name: config.num_processes for name, config in found.items()} == {
        "cpu-2proc": 2,
        "ddp-8gpu": 8,
        "fsdp-8gpu": 8,
        "multinode-2x8": 16,
        "zero2": 8,
        "zero3": 8,
    }
    assert found["zero3"].deepspeed_config["zero_stage"] == 3
    assert found["multinode-2x8"].num_machines == 2
