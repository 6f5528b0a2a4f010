PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?= 60
COUNT ?= 20
SEED ?= 1
QEMU_ROOT ?=
# In parallel, with one process more than processors, as some tests wait; who runs pytest by hand gets one
# test after the other.
WORKERS := $(shell n=$$(nproc 2>/dev/null || echo 1); echo $$((n < 8 ? n + 1 : 8)))
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

demo: $(VENV)/.run ## Make a disk and bitmaps, send, dump, validate, replay, compare; then captures made by QEMU
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: $(VENV)/.test ## Run the tests, but for the long ones
	$(PYTEST)

test-long: $(VENV)/.test ## Run the long tests: those that find little for their time, with more examples
	BLKMIG_LONG=1 $(PYTEST)

test-qemu: $(VENV)/.test ## Run the tests against a real QEMU, which must be there, or as root QEMU_ROOT=DIR's
	BLKMIG_REQUIRE_QEMU=1 BLKMIG_QEMU_ROOT=$(QEMU_ROOT) $(PYTEST) tests/interop

check: $(VENV)/.check ## Check the code: lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy blkmig_cli tests benchmarks fuzz mutate

bench: $(VENV)/.test ## Measure speed, beside dd, qemu-img and QEMU where installed; writes bench.json
	$(BIN)/python -m benchmarks --growth

fuzz: $(VENV)/.fuzz ## Fuzz each target for a minute, or for SECONDS=n
	$(BIN)/python -m fuzz $(SECONDS)

mutate: $(VENV)/.test ## Change code at random, list what no test notices: MODULES="wire/decoder disks" COUNT=50 SEED=1
	$(BIN)/python -m mutate $(MODULES) --count $(COUNT) --seed $(SEED)

docs: $(VENV)/.run ## Make from the code: the pages of reference, docs/blkmig.ksy and .lua, share/, the README's tour
	$(BIN)/python docs/make_format.py
	$(BIN)/python docs/make_kaitai.py
	$(BIN)/python docs/make_wireshark.py
	$(BIN)/python docs/make_commands.py
	$(BIN)/python docs/make_checks.py
	$(BIN)/python docs/make_library.py
	$(BIN)/python docs/make_tour.py
	$(BIN)/python docs/make_share.py

site: $(VENV)/.docs ## Make docs/ into a site, in build/site; needs no network
	$(BIN)/sphinx-build --quiet --fail-on-warning --nitpicky docs build/site

dist: $(VENV)/.check ## Make the sdist and the wheel, in dist/
	rm -rf dist
	$(BIN)/python -m build --quiet

clean: ## Remove what the other targets made
	rm -rf $(VENV) build dist *.egg-info demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp, not $(BIN)/python: venv leaves that behind even where it fails for want of ensurepip.
$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.run

$(VENV)/.check: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[check,test]'
	@touch $@ $(VENV)/.test $(VENV)/.run

$(VENV)/.docs: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@ $(VENV)/.run

$(VENV)/.fuzz: $(VENV)/.test pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,fuzz]'
	@touch $@

.PHONY: help demo test test-long test-qemu check bench fuzz mutate docs site dist clean
