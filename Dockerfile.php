# php-fpm with the extension in it: port 9000, workers as www-data, log on stderr.
#
#   docker build -f Dockerfile.php -t sharedstate .                       Debian 12, PHP 8.2
#   docker build -f Dockerfile.php --target test --shm-size 1g .          the tests, inside that image
#   … --build-arg BASE=docker.io/library/debian:trixie-slim               Debian 13, PHP 8.4
#   … --build-arg BASE=docker.io/library/php:8.4-fpm                      PHP's own image (not for --target test)
#
# build/image does all of it for both Debians, without a Docker engine too.
ARG BASE=docker.io/library/debian:bookworm-slim
ARG RUST=docker.io/library/rust:1.95-slim-bookworm

# The toolchain and the crates are the same for every PHP: fetched once.
FROM ${RUST} AS rust
WORKDIR /crates
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && touch src/lib.rs && cargo fetch --locked

# php-fpm without the extension, with the authorities that any call by HTTPS needs. A base that brings a PHP
# of its own also brings its settings.
FROM ${BASE} AS php
# Empty: the PHP of this Debian. (Not called PHP: build arguments are in the environment, where PHP
# means the path of its binary to ext-php-rs.)
ARG PHP_VERSION=
RUN set -eu; command -v php && exit; \
    apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates "php$PHP_VERSION-cli" "php$PHP_VERSION-fpm"; \
    apt-get clean; rm -rf /var/lib/apt/lists/*; \
    version=$(php -r 'echo PHP_MAJOR_VERSION, ".", PHP_MINOR_VERSION;'); \
    ln -s "php-fpm$version" /usr/sbin/php-fpm; \
    printf '%s\n' '[global]' 'daemonize = no' 'pid = /run/php-fpm.pid' 'error_log = /proc/self/fd/2' \
        '[www]' 'listen = 9000' 'catch_workers_output = yes' 'decorate_workers_output = no' \
        >"/etc/php/$version/fpm/pool.d/zz-container.conf"
WORKDIR /var/www/html
EXPOSE 9000
# SIGTERM would cut off the requests that are being served.
STOPSIGNAL SIGQUIT
CMD ["php-fpm", "-F"]

# A module fits the one PHP minor version that it was built for: so it is built where it will run.
FROM php AS build
ARG PHP_VERSION=
RUN set -eu; apt-get update; \
    command -v phpize || dev="php$PHP_VERSION-dev"; \
    apt-get install -y --no-install-recommends gcc libc6-dev libclang-dev ${dev:-}
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs ./
COPY src src
COPY build/package.d/sharedstate.ini ./
# Below /module as it will lie below /: what is moved in a later step is in an image twice.
RUN set -eu; cargo build --release --features php --locked; \
    if command -v phpenmod; then ini=$(echo /etc/php/*/mods-available); else ini=$(php -r 'echo PHP_CONFIG_FILE_SCAN_DIR;'); fi; \
    install -D -m 644 sharedstate.ini "/module$ini/sharedstate.ini"; \
    install -D -m 644 target/release/libsharedstate.so "/module$(php -r 'echo ini_get("extension_dir");')/sharedstate.so"

FROM php AS image
COPY --from=build /module /
RUN set -eu; ! command -v phpenmod || phpenmod sharedstate; php --ri sharedstate

# The image itself, and in it what the tests need: PHPUnit, Redis, nginx. A PHP that is not Debian's has no PHPUnit of Debian's.
FROM image AS test
RUN set -eu; command -v phpenmod || { echo "error: --target test needs Debian's PHP, for its PHPUnit: choose a Debian as BASE" >&2; exit 1; }; \
    version=$(php -r 'echo PHP_MAJOR_VERSION, ".", PHP_MINOR_VERSION;'); \
    apt-get update; \
    apt-get install -y --no-install-recommends phpunit "php$version-xml" "php$version-mbstring" "php$version-bcmath" \
        redis-server redis-tools nginx-light openssl prometheus
COPY php-tests /sharedstate/php-tests
COPY stubs /sharedstate/stubs
COPY build/package.d /sharedstate/build/package.d
WORKDIR /sharedstate
# Another value runs the tests again.
ARG RUN=
# As it is enabled here, and then suite by suite as the suites load it themselves. There is no earlier
# version in here to deploy from; any other test that is skipped is a failure.
RUN set -eu; php -d sharedstate.host.dir="$(mktemp -d)" php-tests/smoke.php; \
    export SHAREDSTATE_SO="$(php -r 'echo ini_get("extension_dir");')/sharedstate.so"; \
    for suite in api fpm redis fault; do \
        phpunit -c php-tests/phpunit.xml --testsuite "$suite" --exclude-group deployment --fail-on-skipped; \
    done

FROM image
