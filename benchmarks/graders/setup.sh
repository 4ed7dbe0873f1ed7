#!/usr/bin/env bash
# Makes the two environments of the graders that this project is compared with (2.9 GB):
#
#   benchmarks/graders/setup.sh FOLDER
#
# FOLDER/lmms has lmms-eval and what it brings, FOLDER/small math-verify and inspect_ai. Neither is the package's own
# environment, and nothing of the package needs them. P2R_PYTHON and PIP_* work as in scripts/env.sh.
set -euo pipefail
folder=$(realpath -m "${1:?usage: setup.sh FOLDER}")
cd "$(dirname "$0")/../.."
. scripts/lib.sh

mkdir -p "$folder"
for name in lmms small; do
    venv=$folder/$name
    pins=benchmarks/graders/requirements-$name.txt
    wanted=$(digest_of "$pins" scripts/torchvision_cpu.py)
    [ "$(cat "$venv/.installed" 2>/dev/null)" = "$wanted" ] && continue
    make_venv "$venv"
    say "installing $pins into $venv"
    pip_in "$venv" install -r "$pins"
    [ "$name" != lmms ] || torchvision_beside_cpu_torch "$venv"
    printf '%s\n' "$wanted" >"$venv/.installed"
done
