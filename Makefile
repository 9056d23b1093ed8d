# Kindred: `make demo` shows what it does, `make test` checks it. Everything else is for those who work on it.

SWIFT ?= swift
KINDRED = .build/release/kindred
LARGE = qwen2.5-coder-1.5b
SMALL = qwen2.5-coder-0.5b
PROMPT = def fibonacci(n):
MODULES = Kindred $(addprefix Kindred,Compute ModelFiles ModelStore Tokenization KVStore Attention Transformer \
  AttentionMapping Generation Evaluation)

.PHONY: help setup build fetch demo test reproduce reproduce-quick benchmark lint format docs sanitize

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

setup: ## install the Debian packages that are missing
	@Scripts/setup.sh

build: setup ## build the command-line tool
	$(SWIFT) build -c release --product kindred

fetch: build ## download the models that the demo and the full tests use (1.7 GB)
	$(KINDRED) fetch qwen2.5-coder smollm2-135m

demo: build ## generate with the 1.5B alone, then with attention borrowed from the 0.5B
	$(KINDRED) fetch qwen2.5-coder
	@Scripts/demo.sh "$(KINDRED)" "$(LARGE)" "$(SMALL)" "$(PROMPT)"

test: setup ## run all tests, under every instruction set of this machine
	@Scripts/test.sh

reproduce: build ## make the paper's tables and figures again: about three hours, resumable (DATA= evaluation data)
	$(KINDRED) fetch qwen2.5-coder
	@Scripts/reproduce.sh full

reproduce-quick: build ## the same on small samples: about ten minutes
	$(KINDRED) fetch qwen2.5-coder
	@Scripts/reproduce.sh quick

benchmark: setup ## time single operations, beside what this machine can do at most
	cd Benchmarks && $(SWIFT) package benchmark

lint: ## check the format of the Swift code
	$(SWIFT) format lint --strict --recursive Package.swift Sources Tests Benchmarks

format: ## format the Swift code
	$(SWIFT) format --in-place --recursive Package.swift Sources Tests Benchmarks

docs: setup ## build the documentation; warnings are errors
	@for module in $(MODULES); do \
	  $(SWIFT) package --allow-writing-to-directory .build/docs generate-documentation --target $$module \
	    --warnings-as-errors --output-path .build/docs/$$module || exit 1; \
	done

sanitize: setup ## run the C kernels under sanitizers, and cross-compile those for AArch64
	Tests/CKernelsDriver/sanitize.sh
	Tests/CKernelsDriver/neon.sh
