# Two commands do all of their own set-up, inside this folder:
#
#   make demo    install into .venv, run the quick start on the embedded model
#   make test    install into .venv, run every check but the longest; pytest's summary comes last
#
# PYTHON=python3.12 make demo picks another interpreter. Works with GNU make 3.81 (macOS) and later.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

# A .venv whose interpreter is gone (or was never there) makes every stamp below stale.
STALE := $(shell test -x $(BIN)/python || echo no-venv)
NEEDS := Makefile pyproject.toml constraints.txt $(STALE)

STAGES := lint pytest
BESIDE := types docs
# Two processes; tests that share something slow to make (`xdist_group`) share one of them.
PARALLEL := -n 2 --dist loadgroup
COVERAGE := --cov --cov-report=term-missing:skip-covered

.PHONY: help demo serve test thorough lint format types docs pytest bench clean no-venv

help:
	@echo "make demo   the quick start, on a real model"
	@echo "make serve  the same model at http://127.0.0.1:8000: an API, and a page to look through"
	@echo "make test   every check: $(STAGES) $(BESIDE)"
	@echo "make lint types docs pytest   one of them at a time"
	@echo "make thorough   every test in full, and what takes longer: fuzzing, mutants, the release side by side"
	@echo "make format | bench | clean"

# PORT=8080 make serve picks another port.
serve: $(VENV)/.stamp-serve
	@$(BIN)/python -m genlm.bytes serve --port $(or $(PORT),8000)

demo: $(VENV)/.stamp-demo
	@$(BIN)/python -m genlm.bytes demo

# Every stage runs, so that one run reports all there is to repair. Tests leave a quarter of two cores idle: types and
# docs are checked meanwhile, and printed when they are through, long before the tests' summary, which is the last.
test: $(VENV)/.stamp-test
	@failed=""; logs=$$(mktemp -d); trap 'rm -rf "$$logs"' EXIT; \
	for stage in $(BESIDE); do \
	  { $(MAKE) --no-print-directory $$stage > $$logs/$$stage 2>&1 || touch $$logs/failed-$$stage; \
	    { echo; echo "== make $$stage"; cat $$logs/$$stage; } > $$logs/out-$$stage; cat $$logs/out-$$stage; } & \
	done; \
	for stage in $(STAGES); do \
	  echo "== make $$stage"; \
	  $(MAKE) --no-print-directory $$stage || touch $$logs/failed-$$stage; \
	done; \
	wait; \
	for stage in $(STAGES) $(BESIDE); do test ! -e $$logs/failed-$$stage || failed="$$failed $$stage"; done; \
	if [ -n "$$failed" ]; then echo "make test: failed in:$$failed"; exit 1; fi

lint: $(VENV)/.stamp-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.stamp-test
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(VENV)/.stamp-test
	@$(BIN)/mypy

docs: $(VENV)/.stamp-test
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

# QUICK: fewer examples of each property, and annotations unchecked (tests/budget.py). Where coverage is measured, the
# slow tests run as well.
pytest: $(VENV)/.stamp-test
	@QUICK=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) --durations=10 \
	  $(if $(CI),$(COVERAGE),-m "not (release or thorough or slow)")

# Tests without the real model with all their examples, under checked annotations; then what takes longer. The release's
# environment is made beforehand, outside of any test's time limit; where it cannot be, its tests are skipped and say why.
thorough: $(VENV)/.stamp-test $(VENV)/.stamp-llamacpp
	-@$(BIN)/python benchmarks/common/peers.py release
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m "not (real_model or thorough or release)"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) \
	  -m "thorough or release$(if $(CI),, or (slow and real_model))"

bench: $(VENV)/.stamp-demo
	@$(BIN)/python benchmarks/run.py

# Built from source, in about seven minutes of one CPU; without instructions that only this machine has. Where no
# compiler is, the tests of GGUF files are skipped and say why.
$(VENV)/.stamp-llamacpp: $(VENV)/.stamp-test
	@echo "Installing llama-cpp-python into $(VENV) (it compiles for some minutes)"
	@CMAKE_ARGS="-DGGML_NATIVE=OFF" $(PIP) -e ".[llamacpp]" && touch $@ || echo "llama-cpp-python could not be built"

clean:
	rm -rf $(VENV) .venv-* build dist site htmlcov .cache .coverage .coverage.* \
	  .mypy_cache .pytest_cache .ruff_cache .hypothesis benchmarks/.venvs

no-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed, and \`$(PYTHON)\` is not that."; \
	  echo "Install one, or name it: PYTHON=python3.12 make ..."; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "\`$(PYTHON) -m venv\` failed. On Debian or Ubuntu: sudo apt-get install python3-venv"; \
	  echo "On macOS: brew install python. On Fedora: sudo dnf install python3"; exit 1; }

# What `make demo` installs is part of what `make test` installs.
$(VENV)/.stamp-demo: $(NEEDS)
	@echo "Installing into $(VENV) (minutes the first time)"
	@$(PIP) -e ".[demo]"
	@touch $@

$(VENV)/.stamp-serve: $(NEEDS)
	@echo "Installing into $(VENV), with what the server needs"
	@$(PIP) -e ".[demo,serve]"
	@touch $@

$(VENV)/.stamp-test: $(NEEDS)
	@echo "Installing into $(VENV), with what the tests and the docs need (minutes the first time)"
	@$(PIP) -e ".[demo,test,docs]"
	@touch $(VENV)/.stamp-demo $(VENV)/.stamp-serve $@
