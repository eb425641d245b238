# Every command makes what it needs: `make demo` and `make test` work in a fresh clone.
#   make setup EXTRAS=dev,cuda     with JAX for an NVIDIA GPU (or tpu)
#   make test PYTEST_ARGS="-k td"  some of the tests, in one process
#   PYTHON=python3.12              another interpreter for the new .venv

PYTHON ?= python3
EXTRAS ?= dev
# Two tests at a time: a half of them each, and who has finished takes from what the other has left.
PYTEST_ARGS ?= -n 2 --dist worksteal

BIN := .venv/bin
# One stamp for each choice of extras; a newer pyproject.toml or lock makes it stale.
STAMP := .venv/.installed-$(EXTRAS)

.PHONY: setup demo demo-images test test-all test-slow lint types pytest pytest-long format

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  sys.exit(f"jaxcade needs Python 3.11 or newer; $(PYTHON) is {v.major}.{v.minor}. Try: make PYTHON=python3.12 $(or $(MAKECMDGOALS),setup)" if v < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing jaxcade[$(EXTRAS)] into .venv: a minute or two, 1.8 GB"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable ".[$(EXTRAS)]"
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m experiments.demo

test: lint types pytest

lint: $(STAMP)
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check

types: $(STAMP)
	$(BIN)/python -m pyright --pythonpath $(BIN)/python

pytest: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

demo-images: $(STAMP)
	$(BIN)/python -m experiments.demo_images

test-all: test pytest-long

pytest-long: $(STAMP)
	$(BIN)/python -m pytest -m "long or slurm" $(PYTEST_ARGS)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

format: $(STAMP)
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format
