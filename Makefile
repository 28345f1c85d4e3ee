# make demo    the main job, shown: needs only python3, git and make        make demo STORE=redis://localhost
# make serve   the same server, left running (PORT=8000)
# make test    all tests, with a real Redis                                make check   lint and types
# make bench   the benchmarks, against other libraries                      make bench-core   the hot path alone
# make faults  what happens while Redis fails                               make test-topologies   Sentinel, TLS, …
# make backfill, make webhooks    the other end of the wire, shown          make fuzz    100,000 odd inputs

VENV  ?= .venv
PYTHON ?= python3
STORE ?= memory://
PORT  ?= 8000
BIN    = $(VENV)/bin
PIP    = $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo serve backfill webhooks test check format bench bench-core faults fuzz test-topologies clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	@$(BIN)/python -m examples.demo --store $(STORE)

serve: $(VENV)/.demo
	@echo "try:  curl -i -H 'Authorization: Bearer tk_acme_team_1' http://127.0.0.1:$(PORT)/api/agents"
	@RATELIMIT_STORE=$(STORE) $(BIN)/python -m uvicorn examples.three_layers:app --port $(PORT)

backfill: $(VENV)/.demo
	@$(BIN)/python -m examples.backfill $(ARGS)

webhooks: $(VENV)/.dev
	@$(BIN)/python -m examples.webhooks $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

faults: $(VENV)/.dev
	$(BIN)/python -m benchmarks.faults

test-topologies: $(VENV)/.dev
	$(BIN)/python -m pytest -m topologies $(ARGS)

fuzz: $(VENV)/.dev
	FUZZ=$(or $(FUZZ),3500) $(BIN)/python -m pytest tests/fuzz

bench-core: $(VENV)/.dev
	$(BIN)/python -m pytest benchmarks/test_core.py --benchmark-columns=min,median,rounds --benchmark-sort=name
	$(BIN)/python -m benchmarks.instructions

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ratelimit needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) (once; takes about half a minute)"
	@$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) (once; takes a minute or two)"
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.demo
