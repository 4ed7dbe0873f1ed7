#!/usr/bin/env bash
# Fuzzes what strangers write, each target for some minutes, two at a time: scripts/fuzz.sh MINUTES [TARGET...]
#
# .venv-fuzz holds atheris alone and sees .venv behind it. What was found and kept lies under build/fuzz (P2R_FUZZ_OUT):
# the same command goes on from there. P2R_FUZZ_MEDIA names a folder of clips to start from as well.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

minutes=${1:-30}
shift || true
[ $# -gt 0 ] || set -- traces verdicts scores recipes pools probe
venv=.venv-fuzz
make_venv "$venv"
"$venv/bin/python" -c 'import atheris' 2>/dev/null || pip_in "$venv" install 'atheris==3.0.0' \
    || die "atheris 3.0.0 could not be installed; it has wheels for Linux on x86_64"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/p2r.pth"

printf '%s\n' "$@" | PYTHONPATH=$PWD nice -n 15 xargs -P 2 -I TARGET \
    "$venv/bin/python" -m tests.fuzz.run TARGET --minutes "$minutes" --out "${P2R_FUZZ_OUT:-build/fuzz}"
