# make demo and make test do all their own set-up; see scripts/setup.py.
#   PYTHON=3.11   another Python than the lane that runs all (a version, or a path)
#   VENV=DIR      another environment than .venv
#   ARGS=...      more arguments for the command that the target runs

VENV   ?= .venv
PYTHON ?=
ARGS   ?=

BIN  := $(VENV)/bin
BOOT := $(shell for p in python3 python $(BIN)/python; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null && echo $$p && break; done)

# Images for containers often set this; without compiled files, TensorFlow alone takes ten seconds more at each start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format lint types fix bench clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  %-12s %s\n", $$1, $$2}'

setup:  ## make .venv what uv.lock says (the others do so first)
	@test -n "$(BOOT)" || { echo "make: no Python 3 that runs was found on PATH. Install one (Debian: apt install python3 python3-pip)." >&2; exit 1; }
	@$(BOOT) scripts/setup.py --venv "$(VENV)" --python "$(PYTHON)"

demo: setup  ## train, evaluate, push, serve and ask, on real images
	$(BIN)/vitrina demo $(ARGS)

test: setup  ## all tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: format lint types test  ## the one gate: format, lint, types, tests

format: setup  ## is every file as ruff format writes it?
	$(BIN)/ruff format --check .

lint: setup  ## ruff's rules
	$(BIN)/ruff check .

types: setup  ## mypy, strict
	$(BIN)/mypy

fix: setup  ## mend what ruff can, write docs/commands.md and docs/tasks.md anew
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python scripts/command_docs.py
	$(BIN)/python scripts/task_docs.py

bench: setup  ## measure; see benchmarks/README.md
	$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove what the targets wrote (.venv stays)
	rm -rf dist build demo-out benchmarks/out .pytest_cache .mypy_cache .ruff_cache .hypothesis .schemathesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
