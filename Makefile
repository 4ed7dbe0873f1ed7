# `make demo` and `make test` need nothing but Python 3.11 or newer (with venv and pip), git and make.
# PIP_* settings are honoured; P2R_PYTHON picks the Python that the environments are made with.

SHELL := /bin/bash
PY := .venv/bin/python
CODE := videop2r_data tests benchmarks scripts
PYTEST_ARGS ?=
WORKERS ?= auto
COVERAGE_MIN ?= 91
BUILD_ARGS ?=
# Hundreds of tests start a command: where no byte code may be kept, each of them compiles all modules again.
SUITE := env -u PYTHONDONTWRITEBYTECODE $(PY) -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile -m 'not vllm'

.DEFAULT_GOAL := help
.PHONY: help demo test coverage test-vllm gate mutants fuzz audit wheel check format format-check lint types imports main-path bench env \
        env-run env-vllm constraints constraints-vllm ci clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile

demo: env-run ## build the demo data set and say where it is and how to load it
	@$(PY) -m videop2r_data.cli build $(BUILD_ARGS)
	@echo "p2r-data and its python are in .venv/bin: . .venv/bin/activate"

test: env ## every test that needs no model server
	@$(SUITE) $(PYTEST_ARGS)

coverage: env ## the same tests, which then have to reach COVERAGE_MIN percent; half as fast
	@$(SUITE) --cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE_MIN) $(PYTEST_ARGS)

test-vllm: env env-vllm ## the tests against a real vLLM: over HTTP, then in process
	@P2R_REQUIRE_VLLM=1 $(PY) -m pytest tests/integration/test_vllm_server.py tests/integration/test_vllm_evaluate.py \
	  tests/integration/test_vllm_rollout_server.py $(PYTEST_ARGS)
	@P2R_REQUIRE_VLLM=1 .venv-vllm/bin/python -m pytest -p no:cacheprovider \
	  tests/integration/test_vllm_inprocess.py tests/integration/test_vllm_ray.py \
	  tests/integration/test_vllm_rollout_inprocess.py \
	  tests/integration/test_vllm_rollout_transfer.py tests/integration/test_vllm_training.py \
	  tests/backends/test_vllm_engine.py \
	  tests/backends/test_transformers_local.py tests/backends/test_rope_positions.py $(PYTEST_ARGS)

gate: env ## instructions of the hot parts, counted by valgrind, against benchmarks/gate.yaml
	@bash scripts/valgrind.sh >/dev/null
	@$(PY) -m benchmarks.gate $(GATE_ARGS)

mutants: env ## break one guaranteed line at a time: a test must notice each
	@$(PY) scripts/mutants.py

fuzz: env ## fuzz every reader of what strangers write, MINUTES=30 each; TARGET=traces one of them
	@bash scripts/fuzz.sh $(or $(MINUTES),30) $(TARGET)

audit: env ## the pinned packages against the list of known vulnerabilities
	@bash scripts/audit.sh

wheel: ## the wheel, installed into an empty environment of each Python here, builds the demo
	@bash scripts/wheel.sh

check: format-check lint types imports test ## what has to pass before a commit

format: env ## rewrite the code in the project's style
	@$(PY) -m ruff format $(CODE)
	@$(PY) -m ruff check --fix --select I $(CODE)

format-check: env ## fail where `make format` would change something
	@$(PY) -m ruff format --check $(CODE)

lint: env ## ruff
	@$(PY) -m ruff check $(CODE)

types: env ## strict mypy over code, tests and benchmarks
	@$(PY) -m mypy

imports: env ## the import directions of docs/development.md
	@$(PY) -c 'from importlinter.cli import lint_imports_command as c; c()'

main-path: env ## how many modules and classes a demo build enters, and the longest chain of imports
	@$(PY) scripts/main_path.py --max-modules 68 --max-classes 80 --max-chain 15

bench: env ## the benchmarks at a small size; benchmarks/RESULTS.md has the recorded ones
	@$(PY) -m benchmarks run --quick
	@PYTHONPATH=. $(PY) benchmarks/gpu_step.py --quick

env: ## .venv with the package, the tools and the test suite's needs
	@bash scripts/env.sh dev

env-run: ## .venv with the package only
	@bash scripts/env.sh run

env-vllm: ## .venv-vllm: vLLM for the CPU (4 GB)
	@bash scripts/vllm_env.sh

constraints: env ## write constraints.txt from what .venv holds now
	@$(PY) scripts/freeze.py dev decord report train > constraints.txt.new && mv constraints.txt.new constraints.txt

constraints-vllm: env-vllm ## write constraints-vllm.txt from what .venv-vllm holds now
	@.venv-vllm/bin/python scripts/freeze.py --all > constraints-vllm.txt.new \
	  && mv constraints-vllm.txt.new constraints-vllm.txt

ci: ## what CI runs
	@bash .ci/run

clean: ## remove the environments and caches; data sets are left alone
	rm -rf .venv .venv-vllm .venv-fuzz .venv-audit build/fuzz .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
