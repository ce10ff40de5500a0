# Orlop. `make help` lists the targets.
.DEFAULT_GOAL := help
PREFIX ?= /usr/local
BINARIES := orlop orlop-store orlop-builder orlop-runtime orlop-registry orlop-shim orlop-oci

.PHONY: help build demo test check crash bench soak churn install clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build everything, optimised
	cargo build --release --workspace --bins

demo: ## Show the whole story: build, cache, run, push, pull, run again
	./examples/setup.sh demo && $(MAKE) --no-print-directory build && ./examples/demo.sh

test: ## Install what the tests need, build, and run all tests (as root: they run containers)
	./examples/setup.sh test && $(MAKE) --no-print-directory build && cargo test --release --workspace

check: ## Format, lints with warnings denied, tidy rules
	cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings && cargo test -q -p orlop-proto-generate && cargo test -q -p orlop-tests --test tidy

crash: build ## Kill the store 1,000 times and cut its power 200 times: what is acknowledged stays
	cargo run --release -p orlop-tests --bin orlop-crash

bench: build ## Measure ours against Docker's, side by side
	cargo run --release -p orlop-bench

soak: build ## Ten minutes of everything at once on two instances, verified (as root)
	./target/release/orlop-soak --seconds 600

churn: build ## 1,000 containers one after another and 1,000 at once: nothing of them stays (as root)
	./target/release/orlop-churn

install: build ## Install the binaries below PREFIX (default /usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin && install -m 0755 $(BINARIES:%=target/release/%) $(DESTDIR)$(PREFIX)/bin

clean: ## Remove what was built
	cargo clean
