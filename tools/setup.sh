#!/usr/bin/env bash
# Set-up behind the Makefile.
#   tools/setup.sh env          .venv with the exact versions of requirements.lock, and the project in it
#   tools/setup.sh env-device   .venv-device with what a lent GPU machine has (tools/device.lock), and no more
#   tools/setup.sh env-site     .venv-site with what builds the site (tools/site.lock), and no more
#   tools/setup.sh lock         refresh requirements.lock and tools/build.lock
#   tools/setup.sh lock-device  refresh tools/device.lock
#   tools/setup.sh lock-site    refresh tools/site.lock
# Needs Python 3.11-3.13, for env-device 3.12 (PYTHON=... chooses one), and git. Exit 2: the machine lacks
# something.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

UV_OLDEST=0.9.0
# What is made: .venv, or with env-device another folder from another lock.
VENV=.venv
LOCK=requirements.lock
VERSIONS="3.11, 3.12 or 3.13"
ROOM="about 8 GB of disk"
OLDEST=11 NEWEST=13

# What the shell around us must not decide. A mirror named by the user's own configuration still
# counts; the hashes of the locks hold there too.
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV CONDA_PREFIX PIP_TARGET PIP_PREFIX PIP_USER PIP_FIND_LINKS \
    UV_FIND_LINKS UV_CONSTRAINT UV_BUILD_CONSTRAINT UV_OVERRIDE UV_EXCLUDE UV_EXCLUDE_NEWER \
    UV_PRERELEASE UV_RESOLUTION UV_TORCH_BACKEND UV_PYTHON UV_SYSTEM_PYTHON UV_NO_BINARY \
    UV_NO_BUILD UV_NO_BUILD_ISOLATION UV_NO_DEPS UV_PROJECT_ENVIRONMENT UV_CUSTOM_COMPILE_COMMAND
export UV_PYTHON_DOWNLOADS=never
# Where the machine keeps certificates, those decide, as for git: some networks have their own.
for store in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/cert.pem /etc/ssl/cert.pem; do
    if [[ -s $store ]]; then export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS-1}; fi
done

say() { printf '%s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 2; }

# Prints major.minor.micro when the interpreter runs and is one of those supported.
supported_version() {
    "$1" -c 'import sys; v = sys.version_info; oldest, newest = map(int, sys.argv[1:])
sys.exit(1) if not (3, oldest) <= v[:2] <= (3, newest) else print("%d.%d.%d" % v[:3])' \
        "$OLDEST" "$NEWEST" 2>/dev/null
}

find_python() {
    local candidate
    # Last, those of pyenv, whose shims on PATH refuse a version that no file of its own chose.
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python \
            ${HOME:-}/.pyenv/versions/3.1[1-3].*/bin/python}; do
        if supported_version "$candidate" >/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    [[ -z "${PYTHON:-}" ]] || fail "PYTHON=$PYTHON is not a working Python $VERSIONS"
    fail "no Python $VERSIONS on PATH; install one or name it: make env PYTHON=..."
}

# The uv on PATH when it is recent enough, else the locked one in a virtual environment of its own,
# because the system Python may refuse packages ("externally managed").
find_uv() {
    local found oldest
    found=$(uv --version 2>/dev/null | awk 'NR == 1 { print $2 }') || found=
    oldest=$(printf '%s\n' "$UV_OLDEST" "$found" | sort -V | head -n 1)
    if [[ -n "$found" && "$oldest" == "$UV_OLDEST" ]]; then
        UV=uv
        return
    fi
    UV=.uv/bin/uv
    if "$UV" --version >/dev/null 2>&1 && cmp -s tools/build.lock .uv/build.lock; then return; fi
    say "Set-up: uv into .uv (none on PATH from $UV_OLDEST on)"
    rm -rf .uv
    "$1" -m venv .uv ||
        fail "'$1 -m venv' failed; on Debian and Ubuntu the package python3-venv provides it"
    .uv/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes \
        --only-binary :all: -r tools/build.lock
    cp tools/build.lock .uv/build.lock
}

# The stamp in $VENV: first for which Python and folder it was made, then, once complete, from what.
make_environment() {
    local python version place key made_for made_from stamp=$VENV/scae-setup.stamp
    { read -r made_for; read -r made_from; } 2>/dev/null <"$stamp" || true
    if [[ -z "${PYTHON:-}" && "${made_for:-}" == "$(supported_version "$VENV/bin/python") $PWD" ]]; then
        python=$VENV/bin/python  # kept, so that a change of PATH does not rebuild it
    else
        python=$(find_python)
    fi
    version=$(supported_version "$python")
    place="$version $PWD"
    key=$(cat "$LOCK" tools/build.lock pyproject.toml tools/setup.sh | git hash-object --stdin)
    if [[ "${made_for:-}" == "$place" && "${made_from:-}" == "$key" ]]; then
        say "Set-up: $VENV is up to date (Python $version)"
        return
    fi
    find_uv "$python"
    say "Set-up: $VENV with Python $version from $LOCK ($ROOM)"
    if [[ "${made_for:-}" != "$place" ]]; then
        rm -rf "$VENV"
        "$UV" venv --quiet --no-project --python "$python" "$VENV"
    fi
    say "$place" >"$stamp"
    # antlr4-python3-runtime and this project are built; the constraints pin what builds them.
    # Bytecode is made once, here: where Python may not write it (PYTHONDONTWRITEBYTECODE, as in many
    # images) every process would compile torch and TensorFlow again, ten seconds of it.
    "$UV" pip sync --python "$VENV/bin/python" --require-hashes --compile-bytecode \
        --build-constraints tools/build.lock "$LOCK"
    if [[ $VENV == .venv ]]; then  # a lent machine has a copy of the tree and nothing installed from it
        "$UV" pip install --python "$VENV/bin/python" --no-deps \
            --build-constraints tools/build.lock -e .
    fi
    "$UV" pip check --python "$VENV/bin/python"
    say "$key" >>"$stamp"
    say "Set-up: done. To work in it: source $VENV/bin/activate"
}

# The locks hold names, versions and hashes only: no index, no download address. One version of
# each package for all Pythons ("fewest"), so that numbers do not depend on the interpreter.
compile() {
    local target=$1
    shift
    say "Lock: $target"
    "$UV" pip compile --quiet --universal --generate-hashes --python-version "3.$OLDEST" \
        --fork-strategy fewest --upgrade --no-emit-index-url --no-emit-find-links --no-header \
        --no-annotate "$@" --output-file "$target.new" >/dev/null
    if grep -nE '://|^--|^-e| @ |==[^ ]*\+' "$target.new" >&2; then
        rm -f "$target.new"
        fail "the new $target would hold an address or a local version (lines above)"
    fi
    { say "# Written by \`make lock\` from pyproject.toml."; cat "$target.new"; } >"$target.tmp"
    rm -f "$target.new"
    mv "$target.tmp" "$target"
}

refresh_locks() {
    local python
    python=$(find_python)
    find_uv "$python"
    compile tools/build.lock --group setup
    # Not `tracking`: wandb brings pre-releases, and nothing here needs it.
    compile requirements.lock --extra fast --extra reference --extra pipelines --extra test pyproject.toml
}

for_device() { VENV=.venv-device LOCK=tools/device.lock VERSIONS=3.12 OLDEST=12 NEWEST=12; }

refresh_device_lock() {
    local python
    python=$(find_python)
    find_uv "$python"
    compile tools/device.lock --group device
}

for_site() { VENV=.venv-site LOCK=tools/site.lock ROOM="about 150 MB of disk"; }

refresh_site_lock() {
    local python
    python=$(find_python)
    find_uv "$python"
    compile tools/site.lock --group site
}

case "${1:-}" in
    env) make_environment ;;
    env-device) for_device; make_environment ;;
    env-site) for_site; make_environment ;;
    lock) refresh_locks ;;
    lock-device) for_device; refresh_device_lock ;;
    lock-site) refresh_site_lock ;;
    *) fail "usage: tools/setup.sh env|env-device|env-site|lock|lock-device|lock-site" ;;
esac
