# Everything that people and CI run. Needs Python >= 3.11 only; PYTHON=/path/to/python3 names another one.
.DEFAULT_GOAL := help
.PHONY: help setup demo run test lint types bench screenshots images arm64 assets migrations pin clean
PORT ?= 8000
export PORT

# `exec`, so that Ctrl-C and a stopped make reach the program itself.
SETUP = python=$$(scripts/find-python) && "$$python" -m scripts.setup
VENV = .venv/bin

help: ## print this list
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: ## make .venv with everything that running needs
	@$(SETUP)

demo: ## start a center and do the main job on it (ONCE=1: exit with the verdict)
	@$(SETUP) && exec $(VENV)/python -m scripts.demo

run: ## run a center in the foreground (PORT, OPSCENTER_DATA, docs/settings.md)
	@$(SETUP) && exec $(VENV)/python manage.py run

test: ## run all tests that can run on this machine (ARGS="-k name" for some)
	@$(SETUP) --dev && exec $(VENV)/python -m scripts.test $(ARGS)

lint: ## check style and the direction of imports
	@$(SETUP) --dev
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/djlint --quiet --lint templates
	@PYTHONPATH=.:engine/src $(VENV)/lint-imports

types: ## check types
	@$(SETUP) --dev
	@$(VENV)/mypy .

bench: ## measure; results go to var/bench (ARGS="logs engine" for some)
	@$(SETUP) --dev && exec $(VENV)/python -m bench $(ARGS)

screenshots: ## take pictures of every page, light and dark, wide and narrow: var/screenshots
	@$(SETUP) --dev && exec $(VENV)/python -m scripts.screenshots $(ARGS)

ENGINE_IMAGE ?= opscenter-engine:latest
CENTER_IMAGE ?= opscenter:latest
BUILD = docker $(if $(PLATFORM),buildx build --platform $(PLATFORM) $(if $(PUSH),--push,--load),build)

images: ## build the container images (PLATFORM=linux/arm64 by buildx, BASE_IMAGE=… for the engine)
	@$(BUILD) --tag $(ENGINE_IMAGE) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) engine
	@$(BUILD) --tag $(CENTER_IMAGE) .

arm64: ## build the engine's image for arm64, emulated, and put it to the test (root on Debian)
	@$(SETUP) --dev && exec $(VENV)/python -m scripts.arm64

assets: ## fetch the pages' assets by npm and collect them
	@rm -f .venv/stamps/page-assets .venv/stamps/static-files
	@$(SETUP)

migrations: ## write migrations for changed models
	@$(SETUP) && exec $(VENV)/python manage.py makemigrations

pin: ## pin the newest packages that pyproject.toml allows
	@scripts/pin

clean: ## remove what set-up made (the data in var stays)
	@rm -rf .venv node_modules static/vendor var/static .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
