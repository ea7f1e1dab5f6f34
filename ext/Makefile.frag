# Sources are prerequisites, so that `sudo make install` after `make` has nothing to compile: root need not have cargo.
SHAREDSTATE_SOURCES := $(srcdir)/../Cargo.toml $(srcdir)/../Cargo.lock $(srcdir)/../build.rs $(shell find $(srcdir)/../src -type f)

# Both variables are what ext-php-rs goes by. The folder is named, for one in the environment is not in the Makefile
# of the next shell.
$(phplibdir)/sharedstate.so: $(SHAREDSTATE_SOURCES)
	cd $(srcdir)/.. && PHP=$(PHP_EXECUTABLE) PHP_CONFIG=$(PHP_CONFIG_PATH) \
		$(CARGO) build --release --locked --features php --target-dir "$${CARGO_TARGET_DIR:-target}"
	cd $(srcdir)/.. && cp "$${CARGO_TARGET_DIR:-target}/release/libsharedstate.so" $@
