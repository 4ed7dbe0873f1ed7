#!/usr/bin/env bash
# Makes .venv-NAME, the environment of something that the benchmarks compare this package with:
#
#   benchmarks/rivals/env.sh NAME [FOLDER]      curator | datatrove | designer | distilabel | readers | swift | trl
#
# An environment for each, because their requirements exclude each other's and this package's (ms-swift 4.6 wants
# transformers below 5.20 and trl below 1.0; curator pins pandas and litellm). None of them needs a GPU. Every version is
# pinned, in pins/NAME.txt; `P2R_CONSTRAINTS=` (empty) takes the newest that the named ones allow. FOLDER instead of
# .venv-NAME. P2R_PYTHON and PIP_* work as in scripts/env.sh.
#
# `readers` also needs the shared libraries of FFmpeg 4 to 8 for torchcodec; on Debian 12:
#   apt-get install libavdevice59 libavfilter8 libavformat59 libavcodec59
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

name=${1:-}
cpu_torchvision=
case "$name" in
    curator) wants=(bespokelabs-curator==0.1.31) try='from bespokelabs import curator' ;;
    datatrove)
        # The extra `inference` without vllm, sglang and bitsandbytes: the model server runs elsewhere.
        wants=('datatrove[io]==0.10.1' aiofiles httpx aiosqlite typer pyyaml pandas)
        try='from datatrove.pipeline.inference.run_inference import InferenceRunner'
        ;;
    designer) wants=(data-designer==0.9.6) try='from data_designer.interface import DataDesigner' ;;
    distilabel)
        # Its LLMs import requests, which huggingface-hub 1 no longer brings.
        wants=('distilabel[openai]==1.5.3' requests) try='from distilabel.models import OpenAILLM'
        ;;
    readers)
        wants=(decord==0.6.0 qwen-vl-utils==0.0.14 torchcodec==0.13.0 torch==2.13.0 torchvision==0.28.0)
        cpu_torchvision=yes try='import decord, qwen_vl_utils, torchcodec.decoders'
        ;;
    swift)
        # Its sources need setuptools before they are built; its GRPO trainer imports msgspec, which it does not ask for.
        wants=(ms-swift==4.6.0 qwen-vl-utils==0.0.14 torch==2.13.0 torchvision==0.28.0 msgspec)
        cpu_torchvision=yes
        try='from swift.pipelines import rlhf_main; from transformers import Qwen2_5_VLProcessor'
        ;;
    trl)
        wants=(trl==1.16.0 torch==2.13.0 torchvision==0.28.0 pillow)
        cpu_torchvision=yes try='from trl import GRPOTrainer; from transformers import Qwen2_5_VLProcessor'
        ;;
    *) die "usage: $0 curator|datatrove|designer|distilabel|readers|swift|trl [FOLDER]" ;;
esac
venv=${2:-.venv-$name}
pins=${P2R_CONSTRAINTS-benchmarks/rivals/pins/$name.txt}
stamp=$venv/.installed

wanted="${wants[*]} $(digest_of scripts/torchvision_cpu.py ${pins:+"$pins"})"
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
rm -f "$stamp"
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python) || exit 1
    say "making $venv with $("$python" --version) ($python)"
    "$python" -m venv --clear "$venv"
fi
say "installing ${wants[*]} into $venv"
pip_in "$venv" install setuptools wheel
pip_in "$venv" install ${pins:+-c "$pins"} "${wants[@]}"
[ -z "$cpu_torchvision" ] || torchvision_beside_cpu_torch "$venv"
"$venv/bin/python" -c "$try" || die "the environment was made, but this does not run in it: $try"
printf '%s\n' "$wanted" >"$stamp"
