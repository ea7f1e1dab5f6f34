# The extension on Debian's own PHP, in the image that PHP runs in.
#
#   docker build -f Dockerfile.php -t sharedstate .
#   docker run --rm sharedstate php --ri sharedstate
#
# Another Debian brings another PHP: --build-arg DEBIAN=trixie-slim --build-arg PHP=8.4
# A module fits the one PHP minor version it was built for, so both stages start from the same image.
ARG DEBIAN=bookworm-slim
ARG RUST=rust:1.95-slim-bookworm

FROM ${RUST} AS rust

FROM debian:${DEBIAN} AS build
ARG PHP=8.2
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev libclang-dev "php${PHP}-cli" "php${PHP}-dev" \
    && rm -rf /var/lib/apt/lists/*
# Only the toolchain is taken from the Rust image: its Debian need not be this one.
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs* ./
COPY src src
RUN cargo build --release --features php --locked

FROM debian:${DEBIAN}
ARG PHP=8.2
RUN apt-get update \
    && apt-get install -y --no-install-recommends "php${PHP}-cli" "php${PHP}-fpm" \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/target/release/libsharedstate.so /tmp/sharedstate.so
RUN mv /tmp/sharedstate.so "$(php -r 'echo ini_get("extension_dir");')/sharedstate.so" \
    && echo 'extension=sharedstate' >"/etc/php/${PHP}/mods-available/sharedstate.ini" \
    && phpenmod sharedstate \
    && php --ri sharedstate
CMD ["php", "--ri", "sharedstate"]
