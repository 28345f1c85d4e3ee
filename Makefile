# make demo      shows what a limited server answers (examples/server/demo.py); STORE=redis://localhost counts on Redis
# make serve     runs that server (PORT=8000)
# make backfill  shows a client that obeys a server's limits (examples/client/backfill.py)
# make rehearse  shows what limits would have refused of a log of 200,000 lines that it makes (rehearsal.html)
# make console   shows limits and quotas in a browser, with lively traffic (examples/console); prints the address
# make webhooks  shows webhooks at an even pace, while a worker is killed (examples/webhooks/webhooks.py)
#
# make test      runs all tests, with a real Redis        make check            linter, formatter and types
# make fuzz      100,000 malformed inputs                 make test-topologies  Sentinel, TLS, ACLs, Cluster
# make test-matrix  on every Python, with every server  make servers          installs Redis 6.2, 7, 8 and Valkey 9
# make bench     all benchmarks, with other libraries     make bench-core       the hot path alone
# make faults    measures the limiter while Redis fails   make soak             five minutes of many small faults
#                (ARGS="--topology cluster --only killed --missing")   make soak-30   half an hour of them
# make models    explores the protocol in larger models than the tests do (20 min)
# make format    formats all files
# make dist      builds and checks what is published      make test-lowest      on the lowest supported versions
#
# `make demo` needs python3, git and make. ARGS go to pytest (which runs two tests at a time; `-n 0`: one) or to the example.
# SERVER selects the server of all tests: redis-6.2, redis-7, redis-8, valkey-9, or the path of a program (`make test SERVER=valkey-9`).

VENV  ?= .venv
PYTHON ?= python3
STORE ?= memory://
PORT  ?= 8000
BIN    = $(VENV)/bin
PIP    = $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

ifdef SERVER
export REDIS_SERVER = $(SERVER)
# What has a name has to be installed; what has a path is there.
NAMED = $(if $(findstring /,$(SERVER)),,$(VENV)/.servers)
endif

.PHONY: demo serve backfill rehearse console webhooks servers test check format bench bench-core faults soak soak-30 fuzz models
.PHONY: test-topologies test-lowest test-matrix dist clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	@$(BIN)/python -m examples.server.demo --store $(STORE)

serve: $(VENV)/.demo
	@echo "try:  curl -i -H 'Authorization: Bearer tk_acme_team_1' http://127.0.0.1:$(PORT)/api/agents"
	@RATELIMIT_STORE=$(STORE) $(BIN)/python -m uvicorn examples.server.three_layers:app --port $(PORT)

backfill: $(VENV)/.demo
	@$(BIN)/python -m examples.client.backfill $(ARGS)

rehearse: $(VENV)/.dev
	@mkdir -p build
	@echo "writing build/access.log, a day of a made-up API"
	@$(BIN)/python -m examples.rehearsal.make_log build/access.log
	@$(BIN)/python -m ratelimit replay build/access.log --config examples/rehearsal/limits.toml \
	  --format '$$remote_addr - $$remote_user [$$time_local] "$$request" $$status $$body_bytes_sent $$request_time' \
	  --token remote_user --route '/v1/agents/{id}' --route '/v1/agents/{id}/runs' --route /v1/runs --route /v1/exports/full \
	  --report build/rehearsal.html $(ARGS)
	@echo "the whole of it: build/rehearsal.html"

console: $(VENV)/.demo
	@$(BIN)/python -m examples.console.console --store $(STORE) $(ARGS)

webhooks: $(VENV)/.dev
	@$(BIN)/python -m examples.webhooks.webhooks $(ARGS)

servers: $(VENV)/.servers

test: $(VENV)/.dev $(NAMED)
	$(BIN)/python -m pytest -n 2 $(ARGS)

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
	$(BIN)/python -m benchmarks.faults $(ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m benchmarks.faults.soak $(ARGS)

soak-30: $(VENV)/.dev
	$(BIN)/python -m benchmarks.faults.soak 1800

models: $(VENV)/.dev
	$(BIN)/python -m tests.models
	MORE_DEVIATIONS=1 $(BIN)/python -m pytest --timeout 3600 tests/models/test_conformance.py

test-topologies: $(VENV)/.dev $(NAMED)
	$(BIN)/python -m pytest -m topologies $(ARGS)

test-matrix: $(VENV)/.dev $(VENV)/.servers
	@$(BIN)/python -m tests.support.matrix $(ARGS)

test-lowest: $(VENV)-lowest/.lowest
	$(VENV)-lowest/bin/python -m pytest --ignore tests/behaviour/test_demo.py -W default $(ARGS)

dist: $(VENV)/.dev
	@$(PIP) '.[release]'
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/python -m twine check --strict dist/*

fuzz: $(VENV)/.dev $(NAMED)
	FUZZ=$(or $(FUZZ),3500) $(BIN)/python -m pytest tests/fuzz

bench-core: $(VENV)/.dev
	$(BIN)/python -m pytest benchmarks/test_core.py -p no:randomly --benchmark-columns=min,median,rounds --benchmark-sort=name
	$(BIN)/python -m benchmarks.instructions

clean:
	rm -rf $(VENV) $(VENV)-* .servers build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

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

$(VENV)/.servers: pyproject.toml constraints.txt tests/support/debian_redis.sh | $(VENV)/.dev
	@echo "installing servers into $(VENV) and .servers (once; takes half a minute)"
	@$(PIP) --editable '.[servers]'
	@test -x .servers/debian/redis-server || tests/support/debian_redis.sh .servers/debian || echo "Debian's redis-server cannot be had here"
	@touch $@

$(VENV)-lowest/.lowest: pyproject.toml constraints-lowest.txt
	@$(PYTHON) -m venv $(VENV)-lowest
	@echo "installing into $(VENV)-lowest (once; takes a minute or two)"
	@$(VENV)-lowest/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints-lowest.txt --editable '.[lowest]'
	@touch $@
