#!/bin/sh
# Make /opt/venv in an image of Debian 12: Python 3.11, torch and all of requirements.lock, by scripts/setup.sh.
# rtt.def and Dockerfile call it, in a folder that holds requirements.lock, scripts/setup.sh and this file. TORCH_INDEX
# names an index for torch. The project's code is not in the image, since steps run that of the clone.
set -eu
export DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1
apt-get update
apt-get install -y --no-install-recommends ca-certificates git python3.11 python3.11-venv
rm -rf /var/lib/apt/lists/*
PYTHON=python3.11 sh scripts/setup.sh /opt/venv /opt/venv/.complete
