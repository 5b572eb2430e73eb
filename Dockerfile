# Stages: `runtime` is what the executable needs, `prebuilt` adds one that is built already, `build`
# builds one, `final` adds that. No BuildKit is needed.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS runtime
# Data on volumes belongs to this user on every machine: the number is part of the format.
RUN groupadd --gid 10001 plinth \
 && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin plinth \
 && install --directory --owner plinth --group plinth --mode 0700 /data /cluster
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/plinth"]

FROM runtime AS prebuilt
ARG EXECUTABLE=target/release/plinth
COPY ${EXECUTABLE} /usr/local/bin/plinth

FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ccache libclang-dev mold protobuf-compiler \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /plinth
COPY . .
RUN cargo build --locked --release --package plinth \
 && objcopy --strip-debug target/release/plinth /usr/local/bin/plinth

FROM runtime AS final
COPY --from=build /usr/local/bin/plinth /usr/local/bin/plinth
