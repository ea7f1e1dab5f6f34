# The extension on Debian's own PHP, in the image that PHP runs in.
#
#   docker build -f Dockerfile.php -t sharedstate .
#   docker run --rm sharedstate php --ri sharedstate
#
# Another Debian brings another PHP: --build-arg BASE=docker.io/library/debian:trixie-slim --build-arg PHP_VERSION=8.4
# (Not called PHP: a build argument is in the environment, where PHP means the path of its binary to ext-php-rs.)
# A module fits the one PHP minor version it was built for, so both stages start from the same image.
ARG BASE=docker.io/library/debian:bookworm-slim
ARG RUST=docker.io/library/rust:1.95-slim-bookworm

FROM ${RUST} AS rust

FROM ${BASE} AS build
ARG PHP_VERSION=8.2
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev libclang-dev "php${PHP_VERSION}-cli" "php${PHP_VERSION}-dev" \
    && rm -rf /var/lib/apt/lists/*
# Only the toolchain is taken from the Rust image: its Debian need not be this one.
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs* ./
COPY src src
RUN cargo build --release --features php --locked

FROM ${BASE}
ARG PHP_VERSION=8.2
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates "php${PHP_VERSION}-cli" "php${PHP_VERSION}-fpm" \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/target/release/libsharedstate.so /tmp/sharedstate.so
RUN mv /tmp/sharedstate.so "$(php -r 'echo ini_get("extension_dir");')/sharedstate.so" \
    && echo 'extension=sharedstate' >"/etc/php/${PHP_VERSION}/mods-available/sharedstate.ini" \
    && phpenmod sharedstate \
    && php --ri sharedstate
CMD ["php", "--ri", "sharedstate"]
