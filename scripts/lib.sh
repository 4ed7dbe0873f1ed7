# Shared by env.sh and vllm_env.sh: find a Python, make a venv, know when it is up to date.
# Source it; it sets no shell options of its own.

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# Prints the Python to build environments with: $P2R_PYTHON, else the first one that is new enough.
find_python() {
    local candidate
    for candidate in "${P2R_PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        # Also run it: the shims of version managers exist for versions that are not installed.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1 && {
                command -v "$candidate"
                return
            }
            say "$candidate has no venv module (on Debian: apt install python3-venv); looking further"
        fi
    done
    die "no Python 3.11 or newer with the venv module found; set P2R_PYTHON=/path/to/python"
}

# make_venv DIR: makes the venv unless a working one that belongs to this very folder is there.
make_venv() {
    local dir=$1 python
    # A copied or moved folder still runs, but its editable install points at the old place.
    if [ -x "$dir/bin/python" ] && [ "$(cat "$dir/.home" 2>/dev/null)" = "$PWD" ] \
        && "$dir/bin/python" -m pip --version >/dev/null 2>&1; then
        return
    fi
    # A venv somebody made by hand is kept: only one of ours, or a broken one, is made anew.
    if [ -x "$dir/bin/python" ] && [ ! -e "$dir/.home" ] && "$dir/bin/python" -m pip --version >/dev/null 2>&1; then
        printf '%s\n' "$PWD" >"$dir/.home"
        return
    fi
    python=$(find_python) || exit 1
    say "making $dir with $("$python" --version) ($python)"
    "$python" -m venv --clear "$dir"
    printf '%s\n' "$PWD" >"$dir/.home"
}

# digest_of FILE...: one line that changes when any of the files does.
digest_of() { cat "$@" | cksum; }

# pip_in DIR ARG...: pip of that environment, quiet and never asking; the caller's PIP_* settings stay in force.
pip_in() {
    local dir=$1
    shift
    "$dir/bin/python" -m pip "$1" --quiet --no-input --disable-pip-version-check "${@:2}"
}

# torchvision_beside_cpu_torch DIR: lets the CUDA build of torchvision import beside a CPU torch; harmless else.
torchvision_beside_cpu_torch() {
    local site
    site=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cp scripts/torchvision_cpu.py "$site/p2r_torchvision_cpu.py"
    # A .pth line and not sitecustomize.py: Debian's Python ships one of those, and only the first one runs.
    echo 'import p2r_torchvision_cpu; p2r_torchvision_cpu.install()' >"$site/p2r_torchvision_cpu.pth"
}

# python_of 3.12: prints a Python of that version that can make environments: on PATH, of pyenv or of uv; fails if none.
python_of() {
    local candidate
    for candidate in "python$1" \
        "$(pyenv root 2>/dev/null)/versions/$(pyenv versions --bare 2>/dev/null | grep "^$1\." | tail -1)/bin/python" \
        "$(uv python find "$1" 2>/dev/null)"; do
        # Run it: the shims of version managers exist for versions that are switched off.
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$1" \
            >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}
