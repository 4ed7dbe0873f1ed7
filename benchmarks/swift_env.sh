#!/usr/bin/env bash
# Makes .venv-swift: ms-swift on the CPU, for `train_step.py --swift .venv-swift/bin/python`.
#
#   benchmarks/swift_env.sh [FOLDER]
#
# An environment of its own, because ms-swift 4.6 wants transformers below 5.20 and trl below 1.0. About 3 GB.
# P2R_PYTHON and PIP_* work as in scripts/env.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

venv=${1:-.venv-swift}
make_venv "$venv"
say "installing ms-swift for the CPU into $venv (about 3 GB)"
# Its sources need setuptools before they are built; its GRPO trainer imports msgspec, which it does not ask for.
pip_in "$venv" install setuptools wheel
pip_in "$venv" install 'ms-swift==4.6.0' 'qwen-vl-utils==0.0.14' 'torch==2.13.0' 'torchvision==0.28.0' msgspec
torchvision_beside_cpu_torch "$venv"
"$venv/bin/python" -c 'from swift.pipelines import rlhf_main; from transformers import Qwen2_5_VLProcessor' \
    || die "the environment was made, but ms-swift or the processors do not import"
