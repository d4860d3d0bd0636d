# Everything is set up on the way: as root on Debian 12 or 13, with nothing there but make, git and
# ca-certificates. Elsewhere, .ci/need says what is missing.

# The distribution's interpreter, whatever else is on PATH: it is what the service runs on.
PYTHON := /usr/bin/python3
BIN := .venv/bin

# python-pcre where the distribution has it (Debian 12), libpcre2 elsewhere and beside it. Without python3-seccomp
# lognot works with a sandbox less.
RUN_PACKAGES := python3 python3-pyinotify python3-systemd python3-sdnotify libpcre2-8-0
RUN_PACKAGES_WHERE_KNOWN := python3-pcre python3-seccomp
TEST_PACKAGES := python3-venv e2fsprogs logrotate mandoc mount passwd procps strace util-linux zsh
# Whoever is there is measured: a release that lacks one of them measures the others.
BENCH_PACKAGES_WHERE_KNOWN := sec swatch swatchdog fail2ban mtail inotify-tools
DEB_PACKAGES := build-essential debhelper dh-python lintian python3
RPM_PACKAGES := make python3 rpm rpmlint

# Said once, in the package; make deb VERSION=… is for trying an upgrade.
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/lognot/__init__.py)

.DEFAULT_GOAL := help
.PHONY: help run test lint fuzz soak bench clean install install-data uninstall deb rpm needed-to-run needed-to-test

help:
	@echo 'make run    watch lognot answer a recorded attack (15 seconds, harmless)'
	@echo 'make test   lint, type check, unit and integration tests'
	@echo 'make lint   lint and type check only'
	@echo 'make soak   rotations, reloads, kills and floods at once, for MINUTES=10: is anything lost, does anything grow'
	@echo 'make fuzz   coverage-guided fuzzing of all that takes foreign bytes; MINUTES=5 for all targets together'
	@echo 'make bench  measure lognot beside its peers, into bench/RESULTS.md (15 minutes); QUICK=1: only try it'
	@echo 'make clean  remove what the others made here'
	@echo
	@echo 'make install       install below PREFIX, by default /usr/local; starts nothing'
	@echo 'make install-data  the same without the Python package'
	@echo 'make uninstall     remove what was installed, with the same variables'
	@echo 'make deb           dist/lognot_$(VERSION)_all.deb, checked with lintian'
	@echo 'make rpm           dist/lognot-$(VERSION)-1.noarch.rpm and its source package, checked with rpmlint'
	@echo
	@echo 'For install and uninstall: DESTDIR (before every path), PREFIX, SBINDIR, SYSCONFDIR, PYTHONDIR, UNITDIR,'
	@echo 'CATALOGDIR, SYSUSERSDIR, TMPFILESDIR, MANDIR, DOCDIR, BASHCOMPDIR, ZSHCOMPDIR; BYTECOMPILE=no; RECORD=no:'
	@echo 'without the list that uninstall needs. For deb and rpm: VERSION.'

run: needed-to-run
	@$(PYTHON) demo/play.py

# More than there are processors: most of these tests wait for something.
JOBS ?= 5

test: lint
	$(BIN)/pytest -rs -n $(JOBS) --dist loadfile tests/unit tests/integration

lint: needed-to-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Longer than CI has time for: rotations, reloads, kills and floods at once. Root, so that executors are real.
soak: needed-to-run
	@PYTHONPATH=src:tests $(PYTHON) -m soak.run --minutes $(or $(MINUTES),10)

FUZZ := .cache/fuzz

# atheris is libFuzzer for Python, of PyPI alone; nothing but this uses it. The corpus stays until `make clean`.
fuzz: needed-to-run $(FUZZ)/venv/complete
	@$(FUZZ)/venv/bin/python fuzz/run.py --minutes $(or $(MINUTES),5) --cache $(FUZZ) $(TARGETS)

$(FUZZ)/venv/complete:
	@.ci/need python3-venv
	$(PYTHON) -m venv --clear --system-site-packages $(FUZZ)/venv
	$(FUZZ)/venv/bin/pip install --quiet --disable-pip-version-check --retries 10 'atheris>=3'
	@touch $@

# Needs root, and a machine with nothing else to do: installs the peers, and stresses both CPU and disk cache.
bench: needed-to-run
	@.ci/need --where-known $(BENCH_PACKAGES_WHERE_KNOWN)
	@$(PYTHON) bench/run.py $(if $(QUICK),--quick,--write)

clean:
	rm -rf .venv .cache .hypothesis .mypy_cache .ruff_cache build dist src/*.egg-info
	find src tests demo bench fuzz -name __pycache__ -prune -exec rm -rf {} +

# The other variables reach the script by themselves: those of the command line are in its environment.
install install-data uninstall:
	@PYTHON=$(PYTHON) packaging/install.sh $@

deb:
	@.ci/need $(DEB_PACKAGES)
	@packaging/build.sh deb $(VERSION) dist

rpm:
	@.ci/need $(RPM_PACKAGES)
	@packaging/build.sh rpm $(VERSION) dist

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
	$(BIN)/pip install --quiet --disable-pip-version-check --retries 10 -r .venv/requirements.txt
	@touch $@
