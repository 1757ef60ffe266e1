# `make help` lists the targets and the variables.

PYTHON ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
CORES ?= 2
STUDY ?=
PYTEST_ARGS ?= -n 2 --dist loadfile
UPGRADE ?=

VENV := .venv
BIN := $(VENV)/bin
# Written last, so that an interrupted setup counts as none.
STAMP := $(VENV)/.complete

# The models are so small that a second thread per process makes them slower.
export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full lint lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s%s\n", $$1, $$2}' Makefile
	@echo
	@echo "variables (make demo CORES=4):"
	@echo "  PYTHON       the interpreter for .venv (default: the first of python3, python3.13 ... 3.11 that will do)"
	@echo "  TORCH_INDEX  where torch comes from (default: $(TORCH_INDEX), the CPU build;"
	@echo "               empty: whatever pip is configured for)"
	@echo "  CORES        processes at once in 'make demo' (default: 2)"
	@echo "  STUDY        study file of 'make demo' (default: config/config.yaml)"
	@echo "  PYTEST_ARGS  arguments of pytest in 'make test' (default: $(PYTEST_ARGS))"

setup: $(STAMP)  ## make the environment (.venv) and nothing else

$(STAMP): requirements.lock pyproject.toml
	@PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" sh scripts/setup.sh $(VENV) $(STAMP)

demo: setup  ## run the default study; print the recovery table and where the report is
	@$(BIN)/python -m rtt run --cores $(CORES) $(if $(STUDY),--configfile $(STUDY))

test: setup  ## run all tests
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-full: setup  ## all tests, and the long parity and kill matrix (about half an hour)
	@$(BIN)/python -m pytest $(PYTEST_ARGS) -m ""

lint: setup  ## check style: ruff, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

lock: setup  ## make requirements.lock from requirements.in anew (UPGRADE=--upgrade: with newer versions)
	$(BIN)/python -m pip install --quiet uv==0.13.9
	echo torch > $(VENV)/lock-excludes.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --excludes $(VENV)/lock-excludes.txt --custom-compile-command "make lock" $(UPGRADE) \
	  requirements.in --output-file requirements.lock

clean:  ## delete results and caches; .venv stays
	rm -rf results .snakemake report.zip dist .pytest_cache .hypothesis .ruff_cache
