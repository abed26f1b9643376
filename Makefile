# Needs make (3.81 or newer) and Python 3.11-3.13; everything else is set up on first use.
VENV    ?= .venv
PYTHON  ?= python3
PROFILE ?= quick
LOCK    ?=
ifneq ($(words $(PROFILE)) $(filter-out quick laptop paper,$(PROFILE)),1 )
$(error PROFILE is '$(PROFILE)'; allowed are quick, laptop and paper)
endif
ifneq ($(words $(VENV)) $(filter-out / . .. ./ ../,$(VENV)),1 $(VENV))
$(error VENV is '$(VENV)', but must name one folder without spaces for the virtual environment, for example .venv)
endif
ifneq ($(words $(PYTHON)),1)
$(error PYTHON is '$(PYTHON)', but must name one interpreter, for example python3.12)
endif
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup locks gl reproduce figures docs linkcheck test test-all fuzz coverage lint format types clean-caches clean-venv

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile
	@echo "Variables: PROFILE=quick|laptop|paper (now $(PROFILE)), VENV=folder (now $(VENV)), PYTHON=interpreter (now $(PYTHON)), LOCK=requirements/lowest.txt|requirements/highest.txt (now $(or $(LOCK),none))"

setup: $(STAMP)  ## create the virtual environment and install what is missing

# With LOCK, exactly what that file names. Without, a torch that can be imported is kept. Else 2.13.0, the version the
# committed numbers were measured with (where a CPU build of it is at hand, pip takes 2.13.0+cpu and so no CUDA
# libraries); else, once 2.13.0 is no longer offered, the newest.
$(STAMP): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "prefvlm needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is '$$($(PYTHON) --version 2>&1)': name another, e.g. make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
ifeq ($(LOCK),)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install torch==2.13.0 || $(BIN)/pip install torch
	$(BIN)/pip install --quiet -e '.[dev]'
else
	$(BIN)/pip install --quiet -r $(LOCK)
	$(BIN)/pip install --quiet --no-deps -e .
endif
	@touch $@

LOCKED = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --no-annotate \
  --no-emit-index-url --extra browser pyproject.toml

locks: $(STAMP)  ## write requirements/ anew: the oldest versions that pyproject.toml takes, and the newest
	$(BIN)/pip install --quiet uv
	$(LOCKED) --extra test --resolution lowest-direct -o requirements/lowest.txt
	$(LOCKED) --extra dev -o requirements/highest.txt

gl: $(STAMP)
	@PYTHON=$(BIN)/python tools/install_gl.sh

reproduce: $(STAMP) gl  ## train what is missing, run every notebook, write tables and figures
	$(BIN)/prefvlm reproduce --profile $(PROFILE)

figures: $(STAMP) gl  ## draw the figures again from the runs in results/
	$(BIN)/prefvlm figures --profile $(PROFILE)

# Into build/docs, offline; what Sphinx warns of is an error. The site shows the executed notebooks that there are
# (make figures PROFILE=laptop) and executes none.
SPHINX = $(BIN)/sphinx-build -W --keep-going -n -q -d build/doctrees -c docs

docs: $(STAMP) gl  ## build the documentation site, build/docs/index.html
	$(SPHINX) . build/docs

linkcheck: $(STAMP) gl  ## try the links that lead out of the documentation site
	$(SPHINX) -b linkcheck . build/linkcheck

# A process per core, but at most four, as each takes memory; the tests of a file stay together, as they share what is slow.
PYTEST = $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

test: $(STAMP) gl  ## run the tests, except those marked slow
	$(PYTEST) -m 'not slow'

test-all: $(STAMP) gl  ## run all tests, the slow ones too
	$(PYTEST)

fuzz: $(STAMP)  ## search long for input that breaks a property or a reader; the tests search briefly
	$(BIN)/python -m pytest tests/fuzz --hypothesis-profile=long

coverage: $(STAMP) gl  ## run the tests, except those marked slow, and list the lines that none of them reaches
	$(PYTEST) -m 'not slow' --cov --cov-report=term-missing:skip-covered

lint: $(STAMP)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## apply the formatting and the safe style fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)  ## check the type annotations
	$(BIN)/mypy
	MYPYPATH=docs $(BIN)/mypy docs/conf.py docs/generate

clean-caches:  ## remove tool caches; results/ and figures/ stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache
	find prefvlm_core tests notebooks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

clean-venv:  ## remove the virtual environment
	@test -f $(VENV)/pyvenv.cfg || { echo "$(VENV) is not a virtual environment, nothing removed" >&2; exit 1; }
	rm -rf $(VENV)
