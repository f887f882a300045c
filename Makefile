# Everything runs in .venv, made from the Python found on the machine. Nothing else is needed but
# make and a package registry.
#
#   make demo       train the network in examples/digits.py
#   make test       run the tests          (make test ARGS="tests/guide -k ties")
#   make lint       ruff: lint, format check
#   make format     ruff: rewrite
#   make typecheck  pyright on src
#   make bench      benchmarks against the peers
#   make clean      remove .venv and what tools left behind
#
# PYTHON=...    the interpreter to build .venv from (3.11 or newer)
# EXTRAS=a+b    what `make test` installs, of the extras in pyproject.toml
# BENCH=a+b     what `make bench` installs: bench+parity brings PyTorch as well
# PIP_ARGS=...  more options for pip, such as an index of CPU-only builds
# JOBS=2        processes that run tests

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
.NOTPARALLEL:
.SUFFIXES:

PYTHON ?=
EXTRAS ?= test+demo
BENCH ?= bench
PIP_ARGS ?=
JOBS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
comma := ,

.PHONY: help demo test lint format typecheck bench clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.installed-demo
	$(BIN)/python examples/digits.py $(ARGS)

# All tests. Those that compare numbers with PyTorch's, and eager with compiled programs, run as users run them; the
# others with XLA's quickest code generation (see tests/conftest.py), which halves the time, and so do the comparisons
# that are many and about options.
COMPARISONS := tests/parity tests/exactness
MANY := $(addprefix tests/parity/test_,module_db.py functional_torch.py resize_torch.py parametrize_torch.py)
OTHERS := $(filter-out $(COMPARISONS) tests/conftest.py tests/__pycache__,$(wildcard tests/*)) $(MANY)
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test: $(VENV)/.installed-$(EXTRAS)
ifneq (,$(findstring tests/,$(ARGS)))
	$(PYTEST) $(ARGS)
else
	BRICKWORK_TESTS_CODEGEN=quick $(PYTEST) $(OTHERS) $(ARGS)
	$(PYTEST) $(COMPARISONS) $(MANY:%=--ignore=%) $(ARGS) || [ $$? -eq 5 ]  # 5: ARGS deselect all of them
endif

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(VENV)/.installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.installed-$(BENCH)
	$(BIN)/python benchmarks/dispatch.py
	$(BIN)/python benchmarks/trace.py
	$(BIN)/python benchmarks/eager.py
	$(BIN)/python benchmarks/control_flow.py
	$(BIN)/python benchmarks/depth.py
	$(BIN)/python benchmarks/fold.py
	$(BIN)/python benchmarks/convolutions.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/cold_start.py
	$(BIN)/python benchmarks/cache.py
	$(BIN)/python benchmarks/init.py
	$(BIN)/python benchmarks/quantize.py
	$(BIN)/python benchmarks/files.py
	$(BIN)/python benchmarks/layers.py
	$(BIN)/python benchmarks/workloads.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist digits-out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp per set of extras: when nothing changed, a second run installs nothing.
$(VENV)/.installed-%: $(VENV)/.created pyproject.toml
	@echo "installing brickwork with: $(subst +,$(comma) ,$*)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) \
	    --editable '.[$(subst +,$(comma),$*)]'
	@touch $@

.PRECIOUS: $(VENV)/.installed-%

# The first of these that runs and is new enough. A name on the path may be a shim that only
# prints an error, so each one is tried.
$(VENV)/.created:
	@set +e; chosen=""; seen=""; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",python3 python3.12 python3.11 python3.13 python); do \
	    version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	    seen="$$seen $$candidate ($$version)"; \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        chosen="$$candidate"; break; \
	    fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	    echo "brickwork needs Python 3.11 or newer; found:$${seen:- no Python}." >&2; \
	    echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	echo "making $(VENV) with $$chosen ($$("$$chosen" -c 'import sys; print(sys.version.split()[0])'))"; \
	rm -rf $(VENV); \
	if ! "$$chosen" -m venv $(VENV); then \
	    rm -rf $(VENV); \
	    echo "That Python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
	    exit 1; \
	fi; \
	touch $@
