# The four commands of this project. Each sets up what it needs: with python3 (3.11 or newer), make and git installed,
# nothing else has to be prepared. The second call of a command installs nothing.
#
#   make demo     replicate a real PostgreSQL into a DuckDB file while the replicator is killed again and again;
#                 SOURCE=mysql takes MySQL or MariaDB
#   make check    lint, types and the fast tests: under a minute
#   make test     every test, against real servers                 make test ARGS="-k crash"   COVERAGE=1
#   make bench    the measurements of docs/performance.md          make bench QUICK=1
#   make clean    delete what the others installed

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --quiet --disable-pip-version-check
SERVERS := .servers/postgres
MYSQLS  := .servers/mysql
CODE    := $(wildcard cdcrep connectors tests bench)
ARGS    ?=
# Of `make demo`: postgresql or mysql.
SOURCE  ?=
# Tests side by side: most of them wait for servers most of the time.
JOBS    ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo check test bench clean
# A recipe that fails leaves no stamp behind.
.DELETE_ON_ERROR:

help:
	@sed -n '3,10s/^# \{0,3\}//p' Makefile

demo: $(VENV)/.installed-demo $(if $(filter mysql,$(SOURCE)),$(MYSQLS)/.installed)
	$(BIN)/cdcrep demo $(if $(SOURCE),--source $(SOURCE)) $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE)
	$(BIN)/pytest -n 2 --dist worksteal -m "not servers and not crash and not slow" $(ARGS)

test: $(VENV)/.installed-dev $(SERVERS)/.installed $(MYSQLS)/.installed
	$(BIN)/pytest -n $(JOBS) --dist worksteal $(if $(COVERAGE),--cov --cov-report=term) $(ARGS)
	$(if $(COVERAGE),$(BIN)/python -m tests.coverage_limits)

bench: $(VENV)/.installed-dev $(SERVERS)/.installed $(MYSQLS)/.installed
	$(BIN)/python -m bench $(if $(QUICK),--quick) $(ARGS)

clean:
	rm -rf $(VENV) .servers .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The environment's own Python is the stamp: it is there last.
$(BIN)/python:
	scripts/create-venv "$(PYTHON)" $(VENV)

# `--group` needs pip 25.1.
$(VENV)/.pip-upgraded: $(BIN)/python
	$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed-demo: pyproject.toml $(VENV)/.pip-upgraded
	$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.pip-upgraded
	$(PIP) install --editable . --group dev
	@touch $@

# Touched by the script alone, and only when it holds every release: what is missing is tried again at the next call.
$(SERVERS)/.installed: tests/servers/install_postgres.py $(BIN)/python
	$(BIN)/python tests/servers/install_postgres.py $(SERVERS)

# As above. Debian's packages, unpacked: nothing is installed on the system.
$(MYSQLS)/.installed: tests/servers/install_mysql.py tests/servers/debian_packages.py tests/servers/mysql_binaries.py \
		cdcrep/demo/mysql_programs.py $(BIN)/python
	$(BIN)/python -m tests.servers.install_mysql $(MYSQLS)
