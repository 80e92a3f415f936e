# The commands for everyday work. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test check web web-check quick replay histories chaos soak healthy fuzz drills long products shapes audit bench setup clean

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
PYTEST := $(BIN)/python -m pytest $(if $(V),-v -o log_cli=true)

# The demo reads these from its environment. They are taken literally, so that a dollar sign in a sentence stays one.
define literally
ifneq ($(origin $(1)),undefined)
override $(1) := $$(value $(1))
export $(1)
endif
endef
$(foreach variable,BRIEF IDEA REAL EXIT,$(eval $(call literally,$(variable))))

# scripts/setup links Node.js, and a Chromium that it downloads, into the first of these directories.
export PATH := $(CURDIR)/.cofounder/tools/bin:$(PATH)

# Checks and tests do not see the caller's environment, so that no variable can point them to a real service.
CLEAN := env -i PATH="$$PATH" HOME="$$HOME" LANG=C.UTF-8 TERM="$${TERM:-dumb}" \
	$${TMPDIR:+TMPDIR="$$TMPDIR"} $${CI:+CI="$$CI"}

# Tests get a temporary directory of their own, removed at the end with everything that they or their browsers left.
TIDY := TMPDIR=$$(mktemp -d) && export TMPDIR && trap 'rm -rf "$$TMPDIR"' EXIT && trap 'exit 130' INT TERM HUP &&

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## set up, then build a product and show it: BRIEF=file.json or IDEA="a sentence", REAL=1, EXIT=1
	@$(PYTHON) scripts/setup --system
	@$(BIN)/cofounder demo

# Four processes keep two cores busy: builds wait for half of their time, and some tests for timeouts.
test: ## set up, then run linters, types and the tests in a clean environment: ARGS="-k name", V=1
	@REAL= $(PYTHON) scripts/setup --system --console
	@$(MAKE) --no-print-directory check
	@$(TIDY) $(CLEAN) $(PYTEST) -n 4 $(ARGS)

check: setup ## run linters and the type checkers, and compare the migrations with the models
	@$(CLEAN) $(BIN)/ruff check .
	@$(CLEAN) $(BIN)/ruff format --check .
	@$(CLEAN) $(BIN)/mypy & types=$$!; \
	$(MAKE) --no-print-directory web-check & web=$$!; \
	$(CLEAN) $(BIN)/python -m scripts.alembic_check; migrations=$$?; \
	wait $$types; types=$$?; wait $$web; web=$$?; exit $$((types | web | migrations))

web: ## set up, then run all tests of the web console in Chromium: ARGS="-k name"
	@REAL= $(PYTHON) scripts/setup --system --console
	@$(TIDY) $(CLEAN) $(PYTEST) -n 0 --web tests/web $(ARGS)

web-check: ## check the web console: types from the API's description, TypeScript, style, unit tests
	@$(PYTHON) scripts/setup --console
	@$(CLEAN) $(BIN)/python -m scripts.openapi web/openapi.json
	@cd web && $(CLEAN) npm run --silent types && $(CLEAN) npm run --silent check

quick: setup ## run the tests that need no server, in a minute or two
	@$(TIDY) $(CLEAN) $(PYTEST) tests/unit $(ARGS)

replay: setup ## replay the stored histories against the workflows, without a server
	@$(TIDY) $(CLEAN) $(PYTEST) tests/replay $(ARGS)

histories: setup ## record the stored histories again
	@$(CLEAN) $(BIN)/python -m tests.replay.record $(ARGS)

chaos: ## set up, then inject random faults while builds run: SECONDS=600, SEED=1, RUNS=1, ARGS=--watched (by a browser)
	@REAL= $(PYTHON) scripts/setup --system $(if $(findstring --watched,$(ARGS)),--console)
	@$(TIDY) $(CLEAN) $(BIN)/python -m tests.faults.chaos --seconds $(or $(SECONDS),600) --seed $(or $(SEED),1) \
		--runs $(or $(RUNS),1) $(ARGS)

soak: ## set up, then let builds, people, deployments and faults go on together, and draw what grows: SECONDS=3600, SEED=1
	@REAL= $(PYTHON) scripts/setup --system
	@$(TIDY) $(CLEAN) $(BIN)/python -m tests.faults.soak --seconds $(or $(SECONDS),3600) --seed $(or $(SEED),1) $(ARGS)

healthy: ## set up, then build without faults beside a Prometheus, and say which alerts fired: SECONDS=3600
	@REAL= $(PYTHON) scripts/setup --system
	@$(TIDY) $(CLEAN) $(BIN)/python -m tests.faults.healthy --seconds $(or $(SECONDS),3600) $(ARGS)

fuzz: ## set up, then run builds with a hostile model: BUILDS=200, SEED=1
	@REAL= $(PYTHON) scripts/setup --system
	@$(TIDY) $(CLEAN) $(BIN)/python -m tests.faults.fuzz --builds $(or $(BUILDS),200) --seed $(or $(SEED),1) $(ARGS)

drills: ## set up, then do to real servers what operators and clouds do, and run the thorough tests: ARGS="-k reset"
	@REAL= $(PYTHON) scripts/setup --system
	@$(TIDY) $(CLEAN) $(PYTEST) -n 0 --drills tests $(ARGS)

long: ## set up, then take a build of 400 turns through a window of 60,000 tokens: TURNS=400, WINDOW=60000
	@REAL= $(PYTHON) scripts/setup --system
	@$(TIDY) $(CLEAN) LONG_TURNS=$(or $(TURNS),400) LONG_WINDOW=$(or $(WINDOW),60000) \
		$(PYTEST) -n 0 -s tests/workflows/test_long.py $(ARGS)

# They may install through the operator's own mirrors. Literally: a URL may have a password with any character.
MIRRORS := SANDBOX_PRIVATE_HOSTS SANDBOX_PIP_INDEX_URL SANDBOX_NPM_REGISTRY SANDBOX_CA_BUNDLE

products: ## set up, then build real products with real installs, and print a table of seconds: ARGS="fastapi django"
	@REAL= $(PYTHON) scripts/setup --system --node
	@$(TIDY) $(CLEAN) $(foreach name,$(MIRRORS),$${$(name):+$(name)="$$$(name)"}) $(BIN)/python -m tests.products $(ARGS)

# In environments of their own: Kubernetes's schemas are a hundred megabytes.
UV := $(or $(wildcard .cofounder/tools/uv/bin/uv),uv)
APART := UV_PROJECT_ENVIRONMENT=.cofounder/tools/apart UV_PYTHON_DOWNLOADS=never $(UV)

shapes: setup ## validate the manifests for Kubernetes strictly, and the units of systemd
	@command -v kubectl >/dev/null || command -v kustomize >/dev/null || { echo "Install kubectl or kustomize." >&2; exit 1; }
	@command -v systemd-analyze >/dev/null || { echo "Install systemd." >&2; exit 1; }
	@$(APART) sync --quiet --locked --group shapes
	@$(TIDY) $(CLEAN) .cofounder/tools/apart/bin/python -m pytest -n 0 \
		tests/unit/repository/test_kubernetes.py tests/unit/repository/test_systemd.py $(ARGS)

audit: setup ## write bills of materials into .cofounder/sbom, and look for known vulnerabilities (asks pypi.org and npm)
	@mkdir -p .cofounder/sbom
	@$(UV) export --quiet --locked --no-dev --format cyclonedx1.5 --output-file .cofounder/sbom/python.cdx.json >/dev/null
	@$(UV) export --quiet --locked --no-dev --no-emit-project --format requirements.txt \
		--output-file .cofounder/sbom/requirements.txt >/dev/null
	@$(PYTHON) scripts/setup --node
	@cd web && npm sbom --package-lock-only --omit dev --sbom-format cyclonedx > ../.cofounder/sbom/web.cdx.json
	@$(APART) run --quiet --locked --only-group audit pip-audit --strict --require-hashes --disable-pip \
		-r .cofounder/sbom/requirements.txt
	@cd web && npm audit --omit dev

bench: ## set up, then run benchmarks: JSON=figures.json, ARGS="--small", ARGS="turns --turns 25,100", ARGS=--help
	@$(PYTHON) scripts/setup --system
	@$(TIDY) $(CLEAN) $(BIN)/python -m bench $(if $(JSON),--json "$(JSON)") $(ARGS)

setup: ## create the virtual environment with the locked dependencies
	@$(PYTHON) scripts/setup

clean: ## remove everything that setup and runs created, including the data of local stacks
	rm -rf .venv .cofounder .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	rm -rf web/node_modules web/dist web/.dist-* web/openapi.json web/src/api/schema.d.ts
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
