# Every command a person or the build machine runs. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

# Where cargo builds. One profile for all but `bench`, so that OpenSSL is built once.
OUT := $(or $(CARGO_TARGET_DIR),target)
BIN := $(OUT)/debug
CERTS := $(OUT)/certs

# The address `make run` listens on; one of the names in the test certificates.
LISTEN ?= [::1]:4433
# Further arguments for the lab: names of scenarios, --seed N, --format json.
LAB_ARGS ?=
# Who plays in `make lab`: all, or as dtls-lab's --backend says.
LAB_BACKEND ?= all
# Further arguments for the soak: see its --help.
SOAK_ARGS ?=

# What `make fuzz` fuzzes (a file of dtls/fuzz/fuzz_targets), and for how many seconds.
TARGET ?= record_filter
TIME ?= 60

.PHONY: help deps build certs run test test-shared memcheck lab lab-shared lab-netem lab-full endpoints bench bench-peers fuzz soak soak-short fmt check ci clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

deps: ## install what this machine lacks for any target; says what and why
	@scripts/deps.sh all

build: ## build everything
	@scripts/deps.sh build
	cargo build --locked --workspace

certs: ## write a test PKI to target/certs unless one is there
	@scripts/deps.sh build
	cargo build --locked -p dtls-certs
	@if [[ -e $(CERTS)/ca.pem ]]; then echo '$(CERTS) holds a PKI already'; \
	else $(BIN)/dtls-certs generate --force $(CERTS); fi

run: build ## start the server with a fresh test PKI and print what to paste for a client
	@$(BIN)/dtls-certs generate --force $(CERTS) >/dev/null
	@echo 'From another terminal, in this directory:'
	@echo "  $(BIN)/dtls-client connect '$(LISTEN)' --ca $(CERTS)/ca.pem"
	@echo "  openssl s_client -dtls1_2 -connect '$(LISTEN)' -CAfile $(CERTS)/ca.pem -verify_hostname localhost -verify_return_error"
	@exec $(BIN)/dtls-server --listen '$(LISTEN)' --cert $(CERTS)/server.pem --key $(CERTS)/server.key

test: ## run all tests, without root
	@scripts/deps.sh test
	cargo build --locked --workspace
	cargo build --locked -p dtls-server --features testing --bin dtls-server-weakened
	cargo test --locked --workspace --doc --quiet
	cargo nextest run --locked --workspace
	cargo nextest run --locked -p dtls --features testing --test hostile --test seeds --test socket_errors
	@if ((EUID == 0)); then cargo nextest run --locked -p dtls-server --test privilege --run-ignored only; \
	else echo 'not run, since only root can: cargo nextest run -p dtls-server --test privilege --run-ignored only'; fi

test-shared: ## run the server's tests with its connections on one socket
	@scripts/deps.sh test
	DTLS_TEST_TRANSPORT=shared cargo nextest run --locked -p dtls-server

# Leaks, invalid accesses and decisions on uninitialised memory, in OpenSSL too.
VALGRIND := valgrind --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --num-callers=30 --error-exitcode=9

memcheck: ## 2,000 handshakes with loss, forgeries, reconnects under valgrind
	@scripts/deps.sh memcheck
	SOAK_CONNECTIONS=1200 cargo --config 'target."cfg(all())".runner = "$(VALGRIND)"' test --locked -p dtls --no-fail-fast --test soak --test hostile -- --test-threads=1 --nocapture

lab: ## run handshakes across a network broken on purpose, simulated and real; LAB_ARGS='NAME --seed 7' LAB_BACKEND=wire
	@scripts/deps.sh lab
	cargo build --locked --workspace
	$(BIN)/dtls-lab run --backend $(LAB_BACKEND) $(LAB_ARGS)

lab-shared: ## the lab with our server's connections on one socket
	@scripts/deps.sh lab
	cargo build --locked --workspace
	$(BIN)/dtls-lab run --server ours --server-arg=--transport --server-arg=shared $(LAB_ARGS)

endpoints: ## build the lab's small programs on Mbed TLS and wolfSSL, where these are installed
	@lab/endpoints/build.sh $(BIN)

# The oracle first: the page of the matrix shows its newest answer.
lab-full: ## the oracle, the matrix of all implementations, all explorations: a quarter of an hour; LAB_ARGS='--repeat 3'
	@scripts/deps.sh lab-full
	cargo build --locked --workspace
	cargo build --locked --release -p dtls-lab
	@$(MAKE) --no-print-directory endpoints
	$(OUT)/release/dtls-lab oracle
	$(OUT)/release/dtls-lab oracle --handshake full
	$(BIN)/dtls-lab matrix $(LAB_ARGS)
	$(OUT)/release/dtls-lab explore

# Those whose faults are links alone, which the kernel's netem can make.
NETEM_SCENARIOS := burst-ge jitter-reorder-duplicate longrtt-750ms 'loss-*' rate-32kbit-long-chain

lab-netem: ## the lab's links made by a kernel's netem, in User-Mode Linux, and compared with our wire's
	@scripts/deps.sh lab
	@scripts/deps.sh lab-netem
	cargo build --locked --workspace
	UML_TIMEOUT=600 scripts/uml.sh $(BIN)/dtls-lab compare
	LAB_REQUIRE=netem,wire UML_TIMEOUT=600 scripts/uml.sh $(BIN)/dtls-lab run --backend netem --jobs 4 $(NETEM_SCENARIOS) $(LAB_ARGS)

bench: ## measure datagrams, handshakes, memory and the load generator (release build); P99=2s bounds the latter's knee
	@scripts/deps.sh build
	cargo build --locked --release -p dtls-server -p dtls-client
	cargo bench --locked -p dtls --bench datagram
	cargo bench --locked -p dtls-server --bench handshake
	cargo bench --locked -p dtls-client --bench generator -- $(if $(P99),--p99 $(P99))

bench-peers: ## full handshakes with other servers and ours, in turn: rate, latency, server's processor time (release build)
	@scripts/deps.sh peers
	cargo build --locked --release -p dtls-server
	cargo bench --locked -p dtls-client --bench peers

soak: TIME = 30m
soak: CONNECTIONS = 10000
soak: ## a busy forward behind a lossy network, and what must hold afterwards; TIME=30m CONNECTIONS=10000 SOAK_ARGS='--transport shared'
	@scripts/deps.sh build
	cargo build --locked -p dtls-server -p dtls-client
	cargo bench --locked --profile dev -p dtls-server --bench soak -- --time $(TIME) --connections $(CONNECTIONS) $(SOAK_ARGS)

soak-short: ## the same in two minutes and a half
	$(MAKE) --no-print-directory soak TIME=2m CONNECTIONS=1000 SOAK_ARGS='--every 2s --reload-every 20s'

fuzz: ## fuzz a parser for a while; TARGET=record_filter|cookie|heartbeat|known_peers TIME=60
	@scripts/deps.sh build
	@command -v cargo-fuzz >/dev/null || { echo 'installing cargo-fuzz, which runs the fuzz targets'; cargo install --locked cargo-fuzz; }
	@mkdir -p dtls/fuzz/corpus/$(TARGET)
	RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(abspath $(OUT))/fuzz cargo fuzz run --sanitizer none --fuzz-dir dtls/fuzz $(TARGET) dtls/fuzz/corpus/$(TARGET) dtls/fuzz/seeds/$(TARGET) -- -max_total_time=$(TIME)

fmt: ## format the code
	cargo fmt --all

check: ## format, clippy, documentation; dependency direction, tests named in documents
	@scripts/deps.sh check
	cargo fmt --all --check || { echo 'run: make fmt' >&2; exit 1; }
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps
	scripts/check-deps.sh
	scripts/check-docs.sh

ci: check test test-shared lab lab-shared lab-netem soak-short ## everything a change must pass

clean: ## remove everything that was built
	cargo clean
