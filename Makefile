# Everything a newcomer and the maintainers need; `make` alone prints this list.
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
FLIGHTS ?= examples/data/flights-2013-01.csv.gz

.DEFAULT_GOAL := help

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Of a half-made environment nothing is kept: its stamp is written last.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[embedded]' --group dev
	@touch $@

.PHONY: install
install: $(VENV)/.installed ## Install everything into .venv

.PHONY: demo
demo: install ## Import real flights, see 680 fail, repair and reprocess them (FLIGHTS=file.csv.gz: another file)
	@$(BIN)/python -m examples.flights.demo '$(FLIGHTS)'

.PHONY: screenshots
screenshots: install ## Pictures of the dashboard into docs/screenshots; needs chromium
	@$(BIN)/python -m tests.web.dashboard.screenshots docs/screenshots

.PHONY: axe
axe: ## Fetch axe-core, with which the tests check accessibility; needs npm
	@mkdir -p .axe && cd .axe && npm pack --silent axe-core@4.14.1 && tar xzf axe-core-4.14.1.tgz package/axe.min.js

.PHONY: test
test: install ## Run all tests but the long ones, on a PostgreSQL of their own, or on TEST_DSN=postgresql://…
	@$(BIN)/python -m pytest -n $(or $(PROCESSES),auto) --dist worksteal -m 'not long'

.PHONY: test-all
test-all: install ## The long ones too, as CI does
	@$(BIN)/python -m pytest -n $(or $(PROCESSES),auto) --dist worksteal

.PHONY: fuzz
fuzz: install ## Try the REST API with many generated requests (EXAMPLES=300)
	@EXAMPLES=$(or $(EXAMPLES),300) $(BIN)/python -m pytest -q tests/web/api/test_contract.py

.PHONY: torture
torture: install ## Real processes, seeded faults, invariants (SECONDS=60 or MINUTES=, FAULTS=, ITEMS=n|all, SEED=7 …)
	@$(BIN)/python -m tests.torture --seconds $(or $(SECONDS),$(if $(MINUTES),$(MINUTES)m,60)) --workers $(or $(WORKERS),3) \
		--mode $(or $(MODE),item) $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(ITEMS),--items $(ITEMS)) \
		$(if $(ISOLATION),--isolation '$(ISOLATION)') $(if $(BATCH),--batch-items $(BATCH)) $(if $(FILE),--flights '$(FILE)') $(if $(JSON),--json '$(JSON)')

.PHONY: mutants
mutants: install ## Break the engine in known ways; tests and torture must notice each
	@$(BIN)/python -m tests.mutants

.PHONY: check
check: install ## Formatting, lint, types, layers
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/mypy examples
	@$(BIN)/lint-imports --no-logo

# Only variables of the command line count: the environment may have a NAME or a MODE of its own.
BENCH_OPTIONS := ROUNDS ITEMS ONLY MODE MODES BASE LIMIT PEERS CONTENDERS SECONDS SCALE WORKERS MEGABYTES CHUNKED BATCHES REQUESTS DIRECTORY COLD CELLS PROCESSES DELAY ROLES FAILURES
given = $(if $(filter command,$(origin $1)),$($1))

.PHONY: bench
bench: install ## Measure the modes against a hand-written loop and other libraries (NAME=list: all benchmarks)
	@$(if $(or $(filter-out engine,$(call given,NAME)),$(filter 0,$(call given,PEERS))),,$(BIN)/python -m pip install --quiet --group peers)
	@$(BIN)/python -m benchmarks $(or $(call given,NAME),engine) $(foreach option,$(BENCH_OPTIONS),$(if $(call given,$(option)),$(option)='$($(option))'))

.PHONY: format
format: install ## Format and fix what can be fixed
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

.PHONY: clean
clean: ## Remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
