#!/usr/bin/env bash
# Makes .venv with this package in it, editable, at the versions of constraints.txt.
#
#   scripts/env.sh run    what `p2r-data` needs
#   scripts/env.sh dev    the same, with the tools and the test suite's needs
#
# A second call that finds nothing to do takes a few milliseconds. P2R_PYTHON picks the Python, P2R_CONSTRAINTS
# another file of pins (empty: none, newest versions that pyproject.toml allows). PIP_* settings are honoured.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

everything='.[dev,decord,report,train]'
case "${1:-dev}" in
    run) target=. ;;
    dev) target=$everything ;;
    *) die "usage: $0 [run|dev]" ;;
esac
venv=.venv
constraints=${P2R_CONSTRAINTS-constraints.txt}
stamp=$venv/.installed-${1:-dev}
[ "${1:-dev}" = run ] && [ -e "$venv/.installed-dev" ] && stamp=$venv/.installed-dev

wanted="$PWD $constraints $(digest_of pyproject.toml scripts/env.sh scripts/torchvision_cpu.py ${constraints:+"$constraints"})"
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
make_venv "$venv"
[ "${stamp##*-}" = dev ] && target=$everything
say "installing $target into $venv (on the disk: 0.6 GB for run, 2.8 GB for dev)"
pip_in "$venv" install --use-pep517 ${constraints:+-c "$constraints"} -e "$target" \
    || die "pip could not install the pinned versions; on another Python than 3.11 try: P2R_CONSTRAINTS= make env"
[ "${stamp##*-}" != dev ] || torchvision_beside_cpu_torch "$venv"
printf '%s\n' "$wanted" >"$stamp"
