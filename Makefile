# make demo: from nothing to a leaderboard.  make test: lint, types, tests.  Needs Python 3.11+ and nothing else.
#   PYTHON=python3.12       another interpreter
#   PIP_FLAGS="..."         handed to pip, e.g. to choose another index for a smaller build of torch
PYTHON ?= python3
PIP_FLAGS ?=
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS)

.PHONY: demo test parity lint clean
.DEFAULT_GOAL := demo

demo: .venv/.installed
	$(BIN)/robustsweep run sweeps/quickstart.yaml --store results

test: lint
	$(BIN)/python -m pytest -m "not parity"

# pytest exits with 5 when no test is chosen
parity: .venv/.installed-peers
	@$(BIN)/python -m pytest -m parity; code=$$?; \
	if [ $$code -eq 5 ]; then echo "make parity: there is no agreement test yet, so nothing was compared."; \
	else exit $$code; fi

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

test parity: export RAY_USAGE_STATS_ENABLED = 0
test parity: export OMP_NUM_THREADS = 1

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Cleaned. What sweeps found (results/) is kept."

# Stamps: made when a step has succeeded, and again when pyproject.toml has changed.
.venv/.installed: pyproject.toml | .venv/.made
	@echo "Installing robustsweep into .venv; torch and ray are large, the first time takes minutes ..."
	@$(INSTALL) --editable .
	@touch $@ && echo "Installed."

.venv/.installed-dev: pyproject.toml | .venv/.made
	@echo "Installing robustsweep and what its tests need into .venv; the first time takes minutes ..."
	@$(INSTALL) --editable ".[dev]"
	@touch $@ .venv/.installed && echo "Installed."

# Peers, for agreement tests alone; without what they say they need: old versions, and a plotting server.
.venv/.installed-peers: pyproject.toml Makefile .venv/.installed-dev
	@echo "Installing the attack libraries that ours are compared with ..."
	@$(INSTALL) "pyautoattack==0.2.0" "foolbox==3.3.4" tqdm
	@$(INSTALL) --no-deps "torchattacks==3.5.1" "adv-lib==0.2.8"
	@touch $@

.venv/.made:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	seen=$$("$(PYTHON)" --version 2>&1) || seen="not there"; \
	echo "robustsweep needs Python 3.11 or newer, and $(PYTHON) is $$seen."; \
	echo "Name another one: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12"; exit 1; }
	@"$(PYTHON)" -m venv .venv
	@touch $@
