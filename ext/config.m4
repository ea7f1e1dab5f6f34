dnl phpize && ./configure && make && make install, for whoever knows that way, and for PIE. The compiler is cargo;
dnl what phpize brings is the PHP that it was called for. In a folder of its own, for `phpize --clean` deletes
dnl whatever is in build/.

PHP_ARG_ENABLE([sharedstate],
  [whether to enable sharedstate],
  [AS_HELP_STRING([--enable-sharedstate], [Enable sharedstate])],
  [yes])

if test "$PHP_SHAREDSTATE" != "no"; then
  case $host_os in
    linux-gnu*|linux) ;;
    *) AC_MSG_ERROR([sharedstate runs on Linux with glibc; this is $host_os. See docs/PLATFORMS.md.]) ;;
  esac

  dnl Read from Cargo.toml: said once.
  rust_needed=`sed -n 's/^rust-version = "\(.*\)"/\1/p' "$abs_srcdir/../Cargo.toml"`
  dnl rustup installs there and tells only new shells; sudo forgets the rest of PATH.
  AC_PATH_PROG([CARGO], [cargo], [], [$PATH:${CARGO_HOME:-$HOME/.cargo}/bin])
  if test -z "$CARGO"; then
    AC_MSG_ERROR([no Rust toolchain: version $rust_needed or newer is needed. Get it from https://rustup.rs and run this again.])
  fi
  AC_MSG_CHECKING([for Rust $rust_needed or newer])
  rust_found=`cd "$abs_srcdir/.." && "$CARGO" --version 2>/dev/null | cut -d' ' -f2`
  AC_MSG_RESULT([${rust_found:-none}])
  if ! printf '%s\n' "$rust_needed" "$rust_found" | sort -V -C; then
    AC_MSG_ERROR([Rust ${rust_found:-of an unknown version} is too old: version $rust_needed or newer is needed (rustup update stable).])
  fi

  AC_MSG_CHECKING([for libclang, which reads the headers of PHP])
  libclang=`ls -d ${LIBCLANG_PATH:+"$LIBCLANG_PATH"/libclang*.so*} /usr/lib/llvm*/lib/libclang@<:@.-@:>@@<:@0-9s@:>@* /usr/lib*/libclang.so* /usr/lib/*/libclang@<:@.-@:>@@<:@0-9s@:>@* 2>/dev/null | head -n 1`
  AC_MSG_RESULT([${libclang:-none}])
  if test -z "$libclang"; then
    AC_MSG_ERROR([libclang is missing: install it (Debian, Ubuntu: libclang-dev; Fedora: clang-devel), or set LIBCLANG_PATH to the folder it is in.])
  fi

  AC_MSG_CHECKING([for the php of $PHP_CONFIG])
  AC_MSG_RESULT([${PHP_EXECUTABLE:-none}])
  if ! test -x "$PHP_EXECUTABLE"; then
    AC_MSG_ERROR([$PHP_CONFIG names no php command: install the command line PHP it belongs to.])
  fi
  PHP_CONFIG_PATH=`command -v "$PHP_CONFIG"`

  PHP_SUBST([CARGO])
  PHP_SUBST([PHP_CONFIG_PATH])
  PHP_MODULES='$(phplibdir)/sharedstate.so'
  PHP_ADD_BUILD_DIR([modules])
  PHP_ADD_MAKEFILE_FRAGMENT([$abs_srcdir/Makefile.frag], [$abs_srcdir], [$abs_builddir])
fi
