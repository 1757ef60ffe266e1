#!/bin/sh
# Make a virtual environment: sh scripts/setup.sh VENV STAMP [LOCK]  (called by `make setup` and `make figures`)
# Without LOCK: torch, requirements.lock and this project. With it: what is locked there, and this project.
# Reads PYTHON (an interpreter; empty: look for one) and TORCH_INDEX (empty: pip's own configuration).
set -eu
venv=$1 stamp=$2 lock=${3:-}
torch=torch==2.13.0
started=$venv/.started
log=$venv/setup.log

die() {
    echo "make setup: $*" >&2
    exit 1
}

# Is $1 a Python from 3.11 to 3.$2?
suits() {
    "$1" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $2))" 2>/dev/null
}

# Print the interpreter to use. 3.11 to 3.13 first: for them all packages come ready-made, a newer one may compile some.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        suits "$PYTHON" 99 && echo "$PYTHON"
        return
    fi
    for python in python3 python3.13 python3.12 python3.11; do
        if suits "$python" 13; then echo "$python" && return; fi
    done
    suits python3 99 && echo python3
}

if ! python=$(find_python); then
    asked=${PYTHON:-python3}
    found=$("$asked" -c 'import platform; print("is " + platform.python_version())' 2>/dev/null) || found="was not found"
    die "Python 3.11 or newer is needed, but $asked $found: apt install python3.11 python3.11-venv," \
        "or name one: make setup PYTHON=/path/to/python3.11"
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python has no venv module: apt install python$version-venv"

run() {
    "$@" >>"$log" 2>&1 && return
    tail -n 15 "$log" >&2
    die "failed (all of pip's output: $log); the same command tries again"
}

pip() {
    run "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"
}

begin=$(date +%s)
size="1.5 GB, usually 2 to 5 minutes"
if [ -n "$lock" ]; then size="550 MB, usually half a minute"; fi
echo "make setup: environment in $venv with Python $version; about $size, once"
# What an interrupted setup left can't be trusted: pip takes a half-copied package for a whole one.
if [ -e "$started" ]; then rm -rf "$venv"; fi
mkdir -p "$venv"
touch "$started"
rm -f "$stamp"
: >"$log"
run "$python" -m venv "$venv"
export PIP_USER=0

if [ -n "$lock" ]; then
    echo "1/2 all packages, exactly as in $lock"
    pip install --no-deps --require-hashes -r "$lock"
    pip check
    echo "2/2 this project"
    # Not by pip: the lock has no setuptools to build it with, and pip check would miss torch.
    packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$PWD/scripts" >"$packages/rtt.pth"
    run "$venv/bin/python" -c 'import rtt, numpy, snakemake'
    rm "$started"
    touch "$stamp"
    echo "make setup: done in $(($(date +%s) - begin)) s"
    exit
fi

echo "1/4 $torch from ${TORCH_INDEX:-the index that pip is configured for}"
pip install --no-deps --retries 2 ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$torch"

echo "2/4 all other packages, exactly as in requirements.lock"
# One of them comes as source only: it is built with the setuptools of the lock, not with one fetched in passing.
awk '/^[^ #]/ { keep = /^setuptools==/ } keep' requirements.lock >"$venv/setuptools.lock"
pip install --no-deps --require-hashes -r "$venv/setuptools.lock"
pip install --no-deps --require-hashes --no-build-isolation -r requirements.lock
# Nothing to do for a CPU build; a CUDA build brings its libraries.
pip install --retries 2 ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$torch"

echo "3/4 this project"
pip install --no-deps --no-build-isolation -e .

echo "4/4 check"
pip check
run "$venv/bin/python" -c 'import rtt, torch, transformers, snakemake'
rm "$started"
touch "$stamp"
echo "make setup: done in $(($(date +%s) - begin)) s"
