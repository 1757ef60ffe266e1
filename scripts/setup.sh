#!/bin/sh
# Make a virtual environment: sh scripts/setup.sh VENV STAMP [LOCK [MODULES]]  (called by make)
# It installs torch, requirements.lock and this project; with LOCK, the packages of LOCK and this project. MODULES are
# those whose import shows that it is whole. Where the project is not here (envs/container.sh), it installs the packages.
# PYTHON names an interpreter (empty: look for one), TORCH_INDEX an index (empty: as pip is configured).
set -eu
venv=$1 stamp=$2 lock=${3:-} modules=${4:-"rtt, numpy, snakemake"}
torch=torch==2.13.0
started=$venv/.started
log=$venv/setup.log

die() {
    echo "make setup: $*" >&2
    exit 1
}

# Succeed if $1 is a Python from 3.11 to 3.$2.
suits() {
    "$1" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $2))" 2>/dev/null
}

# Print the interpreter to use: 3.11 to 3.13 if there is one, since newer ones may have to compile some packages.
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
    die "failed (pip's whole output: $log); run the same command to try again"
}

pip() {
    run "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"
}

begin=$(date +%s)
size="1.5 GB, usually 2 to 5 minutes"
case "$lock" in
"") ;;
requirements-docs.lock) size="90 MB, usually a few seconds" ;;
*) size="550 MB, usually half a minute" ;;
esac
echo "make setup: environment in $venv with Python $version; about $size, once"
# An interrupted setup leaves packages half copied, which pip would take for whole ones.
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
    # Not with pip: the lock has no setuptools to build it, and pip check would complain that torch is missing.
    packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$PWD/scripts" >"$packages/rtt.pth"
    run "$venv/bin/python" -c "import $modules"
    rm "$started"
    touch "$stamp"
    echo "make setup: done in $(($(date +%s) - begin)) s"
    exit
fi

echo "1/4 $torch from ${TORCH_INDEX:-the index that pip is configured for}"
pip install --no-deps --retries 2 ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$torch"

echo "2/4 all other packages, exactly as in requirements.lock"
# One of them only comes as source. The setuptools of the lock builds it, rather than one that pip would fetch.
awk '/^[^ #]/ { keep = /^setuptools==/ } keep' requirements.lock >"$venv/setuptools.lock"
pip install --no-deps --require-hashes -r "$venv/setuptools.lock"
pip install --no-deps --require-hashes --no-build-isolation -r requirements.lock
# This does nothing for a CPU build; a CUDA build gets its libraries.
pip install --retries 2 ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$torch"

modules="torch, transformers, snakemake"
if [ -e pyproject.toml ]; then
    echo "3/4 this project"
    pip install --no-deps --no-build-isolation -e .
    modules="rtt, $modules"
fi

echo "4/4 check"
pip check
run "$venv/bin/python" -c "import $modules"
rm "$started"
touch "$stamp"
echo "make setup: done in $(($(date +%s) - begin)) s"
