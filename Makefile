# `make help` lists the targets and the variables.

PYTHON ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
CORES ?= 2
STUDY ?=
ARTIFACTS ?=
TEXTS ?=
COMPACT ?=
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
UPGRADE ?=

# What a user gives reaches commands through the environment, as it was typed: as text of this file or of a shell line,
# `demo #2.zip` would be cut short and `$(shell ...)` or backquotes would run.
GIVEN := PYTHON TORCH_INDEX CORES STUDY ARTIFACTS TEXTS COMPACT PYTEST_ARGS UPGRADE
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
export $(GIVEN)

VENV := .venv
BIN := $(VENV)/bin
# The setup writes this last, so that an interrupted one does not count.
STAMP := $(VENV)/.complete
# An environment without torch, for figures from a bundle; if .venv is complete, it is used instead.
ANALYSIS := .venv-analysis
# An environment that only makes the documentation's site.
DOCS := .venv-docs
# The bundle of the project's own results (config/seeds.yaml), which is committed.
REFERENCE := results/reference
FIGURES_VENV := $(if $(wildcard $(STAMP)),$(VENV),$(ANALYSIS))

# The models are so small that a second thread per process makes them slower.
export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo bundle figures docs test test-science test-full test-cluster profile lint lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-14s%s\n", $$1, $$2}' Makefile
	@echo
	@echo "variables (make demo CORES=4):"
	@echo "  PYTHON       interpreter for .venv (default: the first suitable one of python3, python3.13 ... 3.11)"
	@echo "  TORCH_INDEX  package index for torch (default: $$TORCH_INDEX, which has the CPU build;"
	@echo "               empty: the index that pip is configured for)"
	@echo "  CORES        number of processes that 'make demo' runs at once (default: 2)"
	@echo "  STUDY        study file for 'make demo' and 'make bundle' (default: config/config.yaml)"
	@echo "  ARTIFACTS    path or URL of the bundle for 'make figures' (default: $(REFERENCE), the project's own results)"
	@echo "  TEXTS        not empty: 'make bundle' includes the texts of the questions (some datasets should not spread)"
	@echo "  COMPACT      not empty: 'make bundle' puts answers in the place of scores, some hundredth of the size"
	@echo "  PYTEST_ARGS  arguments for pytest (default: $$PYTEST_ARGS)"

setup: $(STAMP)  ## install the environment (.venv)

$(STAMP): requirements.lock pyproject.toml
	@sh scripts/setup.sh $(VENV) $(STAMP)

demo: setup  ## run the default study, print the recovery table and say where the report is
	@$(BIN)/python -m rtt run --cores "$$CORES" $${STUDY:+--configfile "$$STUDY"}

bundle: setup  ## pack the finished study (STUDY) into dist/<study>-<hash>.zip, without weights
	@options="$$TEXTS$$COMPACT"; $(BIN)/python -m rtt run bundle --cores "$$CORES" $${STUDY:+--configfile "$$STUDY"} \
	  $${options:+--config} $${TEXTS:+bundle_texts=true} $${COMPACT:+bundle_compact=true}

figures: $(FIGURES_VENV)/.complete  ## redraw the figures of a bundle (ARTIFACTS), or the project's own, without torch
	@test -n "$$ARTIFACTS" || ls $(REFERENCE)/*.zip >/dev/null 2>&1 || { echo "make figures: $(REFERENCE) holds no bundle;" \
	  "name one: make figures ARTIFACTS=PATH_OR_URL" >&2; exit 1; }
	@$(FIGURES_VENV)/bin/python -m rtt run figures --cores "$$CORES" --config "artifacts=$${ARTIFACTS:-$(REFERENCE)}"

$(ANALYSIS)/.complete: requirements-analysis.lock
	@sh scripts/setup.sh $(ANALYSIS) $@ requirements-analysis.lock

docs: $(DOCS)/.complete  ## make a site of the documentation in dist/site, which needs no network to read
	@$(DOCS)/bin/python scripts/docs_site.py

$(DOCS)/.complete: requirements-docs.lock
	@sh scripts/setup.sh $(DOCS) $@ requirements-docs.lock "furo, myst_parser, sphinx"

test: setup $(DOCS)/.complete  ## run all tests except the longest
	@$(BIN)/python -m pytest $$PYTEST_ARGS

test-science: setup  ## run only the tests of objectives, texts, order, scoring and statistics
	@$(BIN)/python -m pytest $$PYTEST_ARGS tests/methods tests/attacks tests/data/test_text.py \
	  $(addprefix tests/training/test_,losses.py order.py collate.py batches.py packing.py) \
	  tests/scoring tests/point_choice tests/stats

test-full: setup $(DOCS)/.complete  ## run all tests, with the long parity and kill matrix and the benchmarks' (about half an hour)
	@$(BIN)/python -m pytest $$PYTEST_ARGS -m ""

test-cluster: setup  ## run the smoke study, faults and jobs on two nodes on a real SLURM (needs root and Debian's slurm; an hour)
	@$(BIN)/python -m pytest -n 0 -m "" tests/cluster

profile:  ## let 'snakemake --profile slurm' mean profiles/slurm in every folder
	@mkdir -p "$${XDG_CONFIG_HOME:-$$HOME/.config}/snakemake"
	@ln -sfn "$$PWD/profiles/slurm" "$${XDG_CONFIG_HOME:-$$HOME/.config}/snakemake/slurm"
	@echo "snakemake --profile slurm now reads $$PWD/profiles/slurm"

lint: setup  ## check the style with ruff, snakefmt and snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$$(cd $(BIN) && pwd):$$PATH" $(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

lock: setup  ## make the .lock files from the .in files again (UPGRADE=--upgrade takes newer versions)
	$(BIN)/python -m pip install --quiet uv==0.13.9
	echo torch > $(VENV)/lock-excludes.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --excludes $(VENV)/lock-excludes.txt --custom-compile-command "make lock" $$UPGRADE \
	  requirements.in --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --constraints requirements.lock --custom-compile-command "make lock" \
	  requirements-analysis.in --output-file requirements-analysis.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --fork-strategy fewest --constraints requirements.lock --custom-compile-command "make lock" $$UPGRADE \
	  requirements-docs.in --output-file requirements-docs.lock

clean:  ## delete results and caches, but not .venv, and not the project's own results (results/reference)

	find results -mindepth 1 -maxdepth 1 ! -path $(REFERENCE) -exec rm -rf {} + 2>/dev/null || true
	rm -rf .snakemake report.zip dist .pytest_cache .hypothesis .ruff_cache
