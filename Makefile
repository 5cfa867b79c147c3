# gclflow: `make run` and `make test` each do their own set-up.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

export DGLBACKEND := pytorch
# Where it is set, each of the hundreds of processes that tests start would compile our sources again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-fast test-slow lint typecheck audit clean

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)

run: $(STAMP)  ## the whole pipeline on the embedded data set
	$(BIN)/gclflow run --preset digits --store .store --out out/digits

# A file of tests a process at a time, a process a core and one more; each has one thread, so that they do not
# wait for each other.
test: $(STAMP)  ## all tests but the nightly ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not nightly" --numprocesses auto --dist loadfile --no-loadscope-reorder

test-fast: $(STAMP)  ## unit, property and contract tests
	$(BIN)/python -m pytest -m "not slow and not fault and not nightly" tests/unit tests/property tests/contract

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(STAMP)
	$(BIN)/mypy

audit: $(STAMP)  ## the locked versions against a database of known vulnerabilities
	$(BIN)/python .ci/audit

clean:
	rm -rf $(VENV) .store out
