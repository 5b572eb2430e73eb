# The commands of this project. `make test` and `make up` do their own set-up on Debian.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help setup setup-test up down test test-compose sim scale soak check deny fix bench profile

help:
	@echo 'make up      set up, build, start a three-node cluster in data/, print what to curl; make down stops it'
	@echo 'make test    set up, build, run every test'
	@echo 'make test-compose   run compose.yaml on the local Docker engine and test it; make test does not'
	@echo 'make sim     simulate the cluster under faults: SEEDS=1000 of them from FIRST=1 on; goes on where it was ended'
	@echo 'make scale   what clusters of many sizes cost, by simulation: the tables of docs/scale.md'
	@echo 'make soak    kill, freeze and wipe at random for SECONDS=600, with a ledger of what was acknowledged; SEED=n'
	@echo 'make check   formatting, lints, docs, dependency directions; changes no file'
	@echo 'make deny    licences, sources and bans of dependencies, by cargo-deny, which it installs once'
	@echo 'make fix     what can be mended by itself'
	@echo 'make bench   compare with etcd on this machine; BENCH_QUICK=1 for a short run; see docs/performance.md'
	@echo 'make profile where the processor time of a loaded cluster goes'

setup:
	@tools/setup

setup-test:
	@tools/setup test

up: setup
	cargo build -p plinth
	target/debug/plinth up --nodes 3 --data-dir data --detach

down:
	target/debug/plinth down --data-dir data

test: setup-test
	cargo build --workspace --all-targets
	cargo nextest run --workspace --no-fail-fast

# Of the same build as `make test`: a narrower one would choose other features and build anew.
test-compose: setup
	@tools/setup-compose
	cargo build --workspace --all-targets
	RUST_LIB_BACKTRACE=0 cargo nextest run --workspace --run-ignored only --no-capture \
	  --filterset 'package(plinth-test-compose)'

# What was run is noted in RECORD, by default below target/debug/simulation, a file for each build.
SEEDS ?= 1000
FIRST ?= 1
sim: setup
	cargo xtask sim --seeds $(SEEDS) --first $(FIRST) $(if $(RECORD),--record $(RECORD))

scale: setup
	cargo xtask scale

SECONDS ?= 600
soak: setup-test
	cargo build --workspace --all-targets
	PLINTH_SOAK_SECONDS=$(SECONDS) $(if $(SEED),PLINTH_SOAK_SEED=$(SEED)) cargo nextest run --workspace --no-capture \
	  --profile soak --filterset 'package(plinth-test-processes) and test(nothing_acknowledged_is_lost_whatever_is_killed)'

check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --quiet
	cargo xtask deps
	cargo xtask openapi --check
	cargo xtask tidy

# Apart from `check`, for what it takes to build. Advisories need a network that CI may lack.
DENY := target/tools/bin/cargo-deny
deny: setup $(DENY)
	$(DENY) --workspace --locked check licenses bans sources

$(DENY):
	cargo install --quiet --locked --root target/tools cargo-deny

fix: setup
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

bench: setup
	tools/bench/run

profile: setup
	tools/bench/profile
