#!/usr/bin/env bash
# Prints the valgrind that the gate counts instructions with; installs Debian's where there is none and this may be
# done (root). Fails where there is none then: without it nothing holds what the hot parts cost.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

command -v valgrind && exit

if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    say "installing valgrind for the gate"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -q && apt-get install -y -q --no-install-recommends valgrind libc6-dbg; } >/dev/null </dev/null
fi
command -v valgrind \
    || die "valgrind is missing and cannot be installed here: make gate needs it (on Debian: apt install valgrind libc6-dbg)"
