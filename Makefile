# `make help` lists the targets and the variables.

PYTHON ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
CORES ?= 2
STUDY ?=
ARTIFACTS ?=
TEXTS ?=
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
UPGRADE ?=

VENV := .venv
BIN := $(VENV)/bin
# Written last, so that an interrupted setup counts as none.
STAMP := $(VENV)/.complete
# Without torch, for figures from a bundle; where all of .venv is there, that serves.
ANALYSIS := .venv-analysis
FIGURES_VENV := $(if $(wildcard $(STAMP)),$(VENV),$(ANALYSIS))

# Of Snakemake: what steps say, and errors.
QUIET := --quiet rules host progress reason

# The models are so small that a second thread per process makes them slower.
export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo bundle figures test test-science test-full test-cluster profile lint lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-14s%s\n", $$1, $$2}' Makefile
	@echo
	@echo "variables (make demo CORES=4):"
	@echo "  PYTHON       the interpreter for .venv (default: the first of python3, python3.13 ... 3.11 that will do)"
	@echo "  TORCH_INDEX  where torch comes from (default: $(TORCH_INDEX), the CPU build;"
	@echo "               empty: whatever pip is configured for)"
	@echo "  CORES        processes at once in 'make demo' (default: 2)"
	@echo "  STUDY        study file of 'make demo' and 'make bundle' (default: config/config.yaml)"
	@echo "  ARTIFACTS    bundle of 'make figures': a path or a URL"
	@echo "  TEXTS        not empty: 'make bundle' takes the questions' texts too (some datasets should not spread)"
	@echo "  PYTEST_ARGS  arguments of pytest in 'make test' (default: $(PYTEST_ARGS))"

setup: $(STAMP)  ## make the environment (.venv) and nothing else

$(STAMP): requirements.lock pyproject.toml
	@PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" sh scripts/setup.sh $(VENV) $(STAMP)

demo: setup  ## run the default study; print the recovery table and where the report is
	@$(BIN)/python -m rtt run --cores $(CORES) $(if $(STUDY),--configfile $(STUDY))

bundle: setup  ## pack the finished study (STUDY) into dist/<study>-<hash>.zip, without weights
	@$(BIN)/python -m rtt check $(STUDY) >/dev/null
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/snakemake bundle $(QUIET) --cores $(CORES) \
	  $(if $(STUDY),--configfile $(STUDY)) $(if $(TEXTS),--config bundle_texts=true)

figures: $(FIGURES_VENV)/.complete  ## redraw what ARTIFACTS, a bundle's path or URL, holds; no torch
	@test -n "$(ARTIFACTS)" || { echo "make figures: name a bundle: make figures ARTIFACTS=PATH_OR_URL" >&2; exit 1; }
	@PATH="$(abspath $(FIGURES_VENV)/bin):$$PATH" $(FIGURES_VENV)/bin/snakemake figures $(QUIET) --cores $(CORES) \
	  --config 'artifacts=$(ARTIFACTS)'

$(ANALYSIS)/.complete: requirements-analysis.lock
	@PYTHON="$(PYTHON)" sh scripts/setup.sh $(ANALYSIS) $@ requirements-analysis.lock

test: setup  ## run all tests but the longest
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-science: setup  ## only the tests of objectives, texts, order, scoring and statistics
	@$(BIN)/python -m pytest $(PYTEST_ARGS) tests/methods tests/attacks tests/data/test_text.py \
	  $(addprefix tests/training/test_,losses.py order.py collate.py batches.py packing.py) \
	  tests/scoring tests/point_choice tests/stats

test-full: setup  ## all tests, and the long parity and kill matrix (about half an hour)
	@$(BIN)/python -m pytest $(PYTEST_ARGS) -m ""

test-cluster: setup  ## the smoke study and nineteen faults through a real SLURM (root, Debian's slurm; about half an hour)
	@$(BIN)/python -m pytest -n 0 -m "" tests/cluster

profile:  ## make 'snakemake --profile slurm' mean profiles/slurm, in every folder
	@mkdir -p $${XDG_CONFIG_HOME:-$$HOME/.config}/snakemake
	@ln -sfn "$(CURDIR)/profiles/slurm" $${XDG_CONFIG_HOME:-$$HOME/.config}/snakemake/slurm
	@echo "snakemake --profile slurm now reads $(CURDIR)/profiles/slurm"

lint: setup  ## check style: ruff, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

lock: setup  ## make the two .lock files from the .in files anew (UPGRADE=--upgrade: with newer versions)
	$(BIN)/python -m pip install --quiet uv==0.13.9
	echo torch > $(VENV)/lock-excludes.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --excludes $(VENV)/lock-excludes.txt --custom-compile-command "make lock" $(UPGRADE) \
	  requirements.in --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --constraints requirements.lock --custom-compile-command "make lock" \
	  requirements-analysis.in --output-file requirements-analysis.lock

clean:  ## delete results and caches; .venv stays
	rm -rf results .snakemake report.zip dist .pytest_cache .hypothesis .ruff_cache
