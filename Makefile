# Everything is set up on the way: as root on Debian 12 or 13, with nothing there but make, git and
# ca-certificates. Elsewhere, .ci/need says what is missing.

# The distribution's interpreter, whatever else is on PATH: it is what the service runs on.
PYTHON := /usr/bin/python3
BIN := .venv/bin

# python-pcre where the distribution has it (Debian 12), libpcre2 elsewhere and beside it.
RUN_PACKAGES := python3 python3-pyinotify python3-systemd python3-sdnotify libpcre2-8-0
RUN_PACKAGES_WHERE_KNOWN := python3-pcre
TEST_PACKAGES := python3-venv logrotate passwd procps strace util-linux

.DEFAULT_GOAL := help
.PHONY: help run test lint clean needed-to-run needed-to-test

help:
	@echo 'make run    watch lognot answer a recorded attack (15 seconds, harmless)'
	@echo 'make test   lint, type check, unit and integration tests'
	@echo 'make lint   lint and type check only'
	@echo 'make clean  remove what the others made here'

run: needed-to-run
	@$(PYTHON) demo/play.py

test: lint
	$(BIN)/pytest tests/unit tests/integration

lint: needed-to-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf .venv .hypothesis .mypy_cache .ruff_cache build dist src/*.egg-info
	find src tests demo -name __pycache__ -prune -exec rm -rf {} +

needed-to-run:
	@.ci/need $(RUN_PACKAGES) --where-known $(RUN_PACKAGES_WHERE_KNOWN)

needed-to-test:
	@.ci/need $(RUN_PACKAGES) $(TEST_PACKAGES) --where-known $(RUN_PACKAGES_WHERE_KNOWN)
	@$(MAKE) --no-print-directory --silent .venv/complete

# What the tests use is listed once: the extra `test` in pyproject.toml. lognot itself runs from src/.
.venv/complete: pyproject.toml
	@$(BIN)/python -c 'import sys; sys.exit(sys.base_prefix != "/usr")' 2>/dev/null \
	    || $(PYTHON) -m venv --clear --system-site-packages .venv
	@$(PYTHON) -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	    print(*project["optional-dependencies"]["test"], sep="\n")' >.venv/requirements.txt
	echo "Installing what the extra test of pyproject.toml lists into .venv"
	$(BIN)/pip install --quiet --disable-pip-version-check -r .venv/requirements.txt
	@touch $@
