# The commands of this project. `make test` and `make up` do their own set-up on Debian.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help setup test check fix

help:
	@echo 'make test    set up, build, run every test'
	@echo 'make check   formatting, lints, docs, dependency directions; changes no file'
	@echo 'make fix     what can be mended by itself'

setup:
	@tools/setup

test: setup
	cargo nextest run --workspace --no-fail-fast

check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --quiet
	cargo xtask deps

fix: setup
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
