# radtag: `make demo` shows the whole chain on a laptop, `make test` checks it. Both set up .venv first.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Torch in every test process: one thread each, so that two processes fit two cores.
PYTEST_FLAGS ?= -n 2 --dist loadfile

.PHONY: demo test lint docs docs-site readme clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@echo "make demo   phantoms -> train CAM and PYLON -> tag -> evaluate -> demo/report.html, a few minutes on a laptop"
	@echo "make test   formatting, lint, types, import contract, tests"
	@echo "make docs   write what the documentation takes from the code anew"
	@echo "make docs-site  the same, and docs/ as a site in site/ (open site/index.html)"
	@echo "make readme give the README's commands and write their output and pictures into it (some minutes)"
	@echo "make clean  remove .venv, demo/ and caches"

demo: $(INSTALLED)
	$(BIN)/radtag demo --out demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_FLAGS) -m "not gpu"

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	$(BIN)/python docs/write_pages.py

# A warning (a link that leads nowhere, a page in no menu) ends it; so it does in a test.
docs-site: docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Some minutes: the README's commands and pictures, from what they give.
readme: demo
	$(BIN)/python docs/run_readme.py
	$(BIN)/python docs/draw_images.py demo

clean:
	rm -rf $(VENV) demo site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Python 3.11 or 3.12, in this order; a name that exists and does not run (pyenv's shims) is passed over.
$(INSTALLED): pyproject.toml constraints.txt
	@set -e; python=""; \
	for name in $(PYTHON) python3.11 python3.12 python3 python; do \
	    if "$$name" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; then \
	        python="$$name"; break; \
	    fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "radtag needs Python 3.11 or 3.12 with its venv module, and none was found as python3.11, python3.12 or python3." >&2; \
	    echo "Install one (Debian: apt-get install python3.11-venv; any system: uv python install 3.11)," >&2; \
	    echo "or name it: make PYTHON=/path/to/python3.11 test" >&2; \
	    exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$($$python --version); the first time, torch takes some minutes to download."; \
	"$$python" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . --group dev
	@touch $@
