#!/usr/bin/env bash
# The pins of constraints.txt against the vulnerabilities that the package index knows of.
#
# pip-audit lives in an environment of its own. A package that the index does not tell about counts as not looked at:
# with one of those the audit has failed, never passed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

venv=.venv-audit
make_venv "$venv"
[ -x "$venv/bin/pip-audit" ] || pip_in "$venv" install 'pip-audit==2.10.1'
# Editable and local builds have no entry in any index: only plain pins are asked about.
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
grep -E '^[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*$' constraints.txt >"$pins"
code=0
"$venv/bin/pip-audit" -r "$pins" --no-deps --disable-pip --strict --progress-spinner off || code=$?
[ "$code" = 0 ] || die "the audit did not pass: see above. \"could not be audited\" means that the index has no list of
vulnerabilities (a mirror): run \`make audit\` where pypi.org can be reached"
say "no known vulnerability in $(wc -l <"$pins") pinned packages"
