# `make help` lists the targets that have a "## ...". Everything runs in .venv, made on first use.
.DEFAULT_GOAL := help
.PHONY: help install demo test lint docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The first interpreter that is new enough and has venv. PYTHON=path on the command line goes first.
define with_python
for python in $(PYTHON) python3 python3.11 python3.12 python3.13; do \
    if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
        2> /dev/null; then exec $$python $(1); fi; \
done; \
echo "make: no python3 on the PATH is 3.11 or newer and has venv (Debian: python3-venv)." \
    "Install one, or name it: make $(or $(MAKECMDGOALS),install) PYTHON=path" >&2; \
exit 1
endef

install: ## make or update .venv with the package and what its tests need
	@$(call with_python,.ci/setup.py)

demo: install ## fine-tune, merge and compare on the embedded suite; minutes on two cores
	@.venv/bin/tsv-bench experiment=embedded

test: install ## lint, then all tests
	@.venv/bin/ruff check .
	@# Bytecode is kept: the processes that tests start would compile all that they import.
	@PYTHONDONTWRITEBYTECODE= .venv/bin/pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

lint: install ## ruff only
	@.venv/bin/ruff check .

docs: ## build the documentation into site/; a minute, its tools go into .venv-docs
	@$(call with_python,.ci/docs.py)

clean: ## remove .venv and tool caches; data, checkpoints and runs stay
	rm -rf .venv .venv.old .venv-docs .site site .setup.lock .pytest_cache .ruff_cache
