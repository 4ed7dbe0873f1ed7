#!/usr/bin/env bash
# Builds the wheel, looks whether it holds every file of the package, installs it into an empty environment and runs
# the demo from there: with each Python of 3.11, 3.12 and 3.13 that this machine has (on PATH, of pyenv or uv).
#
#   scripts/wheel.sh            all of them; one that is not there is named and skipped
#   scripts/wheel.sh 3.12       that one, which must be there
#
# Python 3.11 gets the pins of constraints.txt, the others the newest versions that pyproject.toml allows.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

build() {
    say "building the wheel"
    "$(find_python)" -m venv "$made/tools"
    pip_in "$made/tools" wheel --no-deps -w "$made/dist" . || die "the wheel cannot be built"
    wheel=$(echo "$made"/dist/*.whl)
    # Prompts, recipes, scripts and styles of the gallery, stubs, py.typed: what git has, the wheel has.
    git ls-files -- videop2r_data | sort >"$made/wanted"
    "$made/tools/bin/python" -m zipfile -l "$wheel" | awk '{print $1}' | grep '^videop2r_data/' | sort >"$made/held"
    diff "$made/wanted" "$made/held" >&2 || die "files of the package (<) and of the wheel (>) differ"
    say "the wheel has all $(wc -l <"$made/wanted") files of the package, $(wc -c <"$wheel") bytes"
}

try() {
    local version=$1 python=$2 start=$SECONDS pins=() venv="$made/$1"
    [ "$version" = 3.11 ] && pins=(-c constraints.txt)
    "$python" -m venv "$venv"
    pip_in "$venv" install "${pins[@]}" "$wheel" || die "the wheel cannot be installed on Python $version"
    local installed=$((SECONDS - start))
    # From an empty folder, so that no file of the checkout is found by chance.
    mkdir "$made/demo-$version"
    (
        cd "$made/demo-$version"
        unset PYTHONPATH
        "$venv/bin/p2r-data" build --quiet --json >build.json
        "$venv/bin/p2r-data" verify videop2r-demo --quiet >/dev/null
        "$venv/bin/p2r-data" gallery videop2r-demo --quiet >/dev/null
        "$venv/bin/p2r-train" recipes >/dev/null
        "$venv/bin/python" -c 'import videop2r_data, pathlib; assert "site-packages" in videop2r_data.__file__' || exit 1
    ) || die "the demo does not run from the wheel on Python $version"
    say "Python $("$venv/bin/python" -c 'import platform; print(platform.python_version())'):" \
        "installed in $installed s, $(du -sm "$venv" | cut -f1) MB," \
        "$("$venv/bin/python" -m pip list --format=freeze | wc -l) packages;" \
        "demo, verify and gallery in $((SECONDS - start - installed)) s"
    rm -rf "$venv"
}

build
for version in ${1:-3.11 3.12 3.13}; do
    if python=$(python_of "$version"); then
        try "$version" "$python"
    elif [ $# -gt 0 ]; then
        die "no Python $version here"
    else
        say "SKIPPED: no Python $version here"
    fi
done
