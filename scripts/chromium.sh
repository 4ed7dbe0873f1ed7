#!/usr/bin/env bash
# Prints the Chromium that the page tests use; installs Debian's where there is none and this may be done (root).
#
# P2R_CHROMIUM names another one.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

found() { command -v "${P2R_CHROMIUM:-chromium}" || command -v chromium-browser || command -v google-chrome; }

if ! found && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    say "installing chromium for the page tests"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -q && apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core; } >/dev/null </dev/null
    found || die "chromium was installed and cannot be found"
fi
