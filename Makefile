# What a newcomer types. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help demo test check quick replay histories chaos bench setup clean

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
PYTEST := $(BIN)/python -m pytest $(if $(V),-v -o log_cli=true)

# The demo reads these from its environment. Taken literally: a dollar sign in a founder's sentence is a dollar sign.
define literally
ifneq ($(origin $(1)),undefined)
override $(1) := $$(value $(1))
export $(1)
endif
endef
$(foreach variable,BRIEF IDEA REAL EXIT,$(eval $(call literally,$(variable))))

# A downloaded Chromium is linked in the first of these, see scripts/setup.
export PATH := $(CURDIR)/.cofounder/tools/bin:$(PATH)

# Checks and tests see nothing of the caller's environment, so that no variable can point them at a real service.
CLEAN := env -i PATH="$$PATH" HOME="$$HOME" LANG=C.UTF-8 TERM="$${TERM:-dumb}" \
	$${TMPDIR:+TMPDIR="$$TMPDIR"} $${CI:+CI="$$CI"}

# Tests work in a temporary directory of their own, which goes with them whatever they or their browsers leave in it.
TIDY := TMPDIR=$$(mktemp -d) && export TMPDIR && trap 'rm -rf "$$TMPDIR"' EXIT && trap 'exit 130' INT TERM HUP &&

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## set up, then build a product and show it: BRIEF=file.json or IDEA="a sentence", REAL=1, EXIT=1
	@$(PYTHON) scripts/setup --system
	@$(BIN)/cofounder demo

test: ## set up, then linters, types and all tests, whatever is in the environment: ARGS="-k name", V=1
	@REAL= $(PYTHON) scripts/setup --system
	@$(MAKE) --no-print-directory check
	@$(TIDY) $(CLEAN) $(PYTEST) -n 2 $(ARGS)

check: setup ## linters, types, and whether the migrations match the models
	@$(CLEAN) $(BIN)/ruff check .
	@$(CLEAN) $(BIN)/ruff format --check .
	@$(CLEAN) $(BIN)/mypy & types=$$!; \
	$(CLEAN) $(BIN)/python -m scripts.alembic_check; migrations=$$?; \
	wait $$types && exit $$migrations

quick: setup ## the tests that need no server, in seconds
	@$(TIDY) $(CLEAN) $(PYTEST) tests/unit $(ARGS)

replay: setup ## replay the stored histories against the workflows, without a server
	@$(TIDY) $(CLEAN) $(PYTEST) tests/replay $(ARGS)

histories: setup ## record the stored histories afresh
	@$(CLEAN) $(BIN)/python -m tests.replay.record $(ARGS)

chaos: ## set up, then random faults while builds run: SECONDS=600, SEED=1, RUNS=1 (with the seeds that follow)
	@REAL= $(PYTHON) scripts/setup --system
	@$(TIDY) $(CLEAN) $(BIN)/python -m tests.faults.chaos --seconds $(or $(SECONDS),600) --seed $(or $(SEED),1) \
		--runs $(or $(RUNS),1) $(ARGS)

bench: ## set up, then measure: JSON=figures.json, ARGS="--small", ARGS="turns --turns 25,100" (ARGS=--help tells all)
	@$(PYTHON) scripts/setup --system
	@$(TIDY) $(CLEAN) $(BIN)/python -m bench $(if $(JSON),--json "$(JSON)") $(ARGS)

setup: ## the virtual environment with the locked dependencies
	@$(PYTHON) scripts/setup

clean: ## remove what set-up and runs have made, the data of local stacks included
	rm -rf .venv .cofounder .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
