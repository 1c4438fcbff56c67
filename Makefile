# rserpool: `make demo` shows the main job, `make test` passes the tests; the rest is below.
#
#   make              release build: library, rspregistrar, rspctl, C examples, librsplib.so.3 link
#   make demo         registrars, pool elements, one client on this machine, and failover (< 60 s); SECURE=1: over TLS
#   make test         all tests (installs missing test tools where it may, else says SKIPPED)
#   make check        formatting, clippy, documentation, with warnings as errors
#   make bench        benchmarks against their references
#   make soak         the simulated world with new seeds, until stopped
#   make compat       Debian's rsplib programs on our library and registrar
#   make interop      the same over kernel SCTP, mixed with rsplib's registrars (needs the lab)
#   make interop-bench  theirs and ours measured side by side in one guest of the lab
#   make test-packages  the Debian packages and the container's root file system: installed, used, purged
#   make reach        software that people run, through the preload library: killed, stopped, restarted, what it costs, others'
#                     tests of sockets; the recipes of docs/reach.md; the proxy beside HAProxy
#   make fuzz         each fuzz target for FUZZ_SECONDS
#   make wheel        the Python package with the library in it, in target/wheel: pip install needs nothing else
#   make install      honours DESTDIR, prefix, libdir, includedir, mandir; PROFILE=debug installs that build
#   make install-service  systemd units, configuration and completions; honours sysconfdir, unitdir as well
#   make deb          Debian packages in target/deb
#   make clean

prefix     ?= /usr/local
bindir     ?= $(prefix)/bin
libdir     ?= $(prefix)/lib
includedir ?= $(prefix)/include
mandir     ?= $(prefix)/share/man
pkgdir     ?= $(libdir)/pkgconfig
sysconfdir ?= $(prefix)/etc
unitdir    ?= $(prefix)/lib/systemd/system
compatdir  ?= $(libdir)/rserpool/compat
CARGO      ?= cargo
CC         ?= cc
TARGET     := $(or $(CARGO_TARGET_DIR),target)
PROFILE    ?= release
BUILD      := $(TARGET)/$(PROFILE)
ifneq ($(shell getconf LONG_BIT 2>/dev/null),64)
$(error rserpool needs a 64-bit system: the C API has the layouts of rsplib on one)
endif
VERSION    := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOVERSION  := 0
FUZZ_SECONDS ?= 600

.PHONY: all build examples demo test check bench soak compat interop interop-bench reach fuzz man install install-service wheel deb test-packages \
    uninstall clean

all: build examples

build:
	$(CARGO) build --workspace $(if $(filter release,$(PROFILE)),--release)
	ln -sf librserpool.so $(BUILD)/librserpool.so.$(SOVERSION)
	ln -sf librserpool_preload.so $(BUILD)/librserpool-preload.so
	mkdir -p $(BUILD)/compat
	ln -sf ../librserpool.so $(BUILD)/compat/librsplib.so.3
	ln -sf librserpool.so $(BUILD)/librsplib.so

examples: build
	$(MAKE) -s -C c-examples CC="$(CC)" LIBDIR="$(abspath $(BUILD))" OUT="$(abspath $(TARGET)/examples)"

demo: examples
	TARGET="$(TARGET)" scripts/demo

test:
	scripts/test

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

bench:
	$(CARGO) bench

soak:
	RSP_SOAK=1 $(CARGO) test --release --test sim -- --nocapture soak

compat: all
	tests/compat/run

interop: all
	interop/run

interop-bench: all
	interop/side-by-side

reach: build
	scripts/needs nginx:nginx-light curl:curl redis-server:redis-server memcached:memcached node:nodejs git:git rsync:rsync psql:postgresql wget:wget socat:socat perl:perl \
	    java:default-jdk-headless go:golang-go wrk:wrk redis-benchmark:redis-tools haproxy:haproxy cmake:cmake dpkg-source:dpkg-dev /usr/lib/python3/dist-packages/requests:python3-requests /usr/lib/python3/dist-packages/aiohttp:python3-aiohttp \
	    /usr/lib/python3.11/test/test_socket.py:libpython3.11-testsuite
	scripts/reach
	scripts/recipes
	scripts/measure-proxy

fuzz:
	cd fuzz && for target in wire registrar session client datagrams notifications settings tls dns capi http options; do \
	    $(CARGO) fuzz run -s none $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

man:
	[ ! -d docs/man ] || scripts/man $(TARGET)/man

install: build man
	install -d "$(DESTDIR)$(bindir)" "$(DESTDIR)$(libdir)" "$(DESTDIR)$(includedir)/rserpool" \
	    "$(DESTDIR)$(pkgdir)" "$(DESTDIR)$(compatdir)"
	scripts/install-stripped $(BUILD)/rspregistrar "$(DESTDIR)$(bindir)/rspregistrar"
	scripts/install-stripped $(BUILD)/rspctl "$(DESTDIR)$(bindir)/rspctl"
	scripts/install-stripped $(BUILD)/librserpool.so "$(DESTDIR)$(libdir)/librserpool.so.$(VERSION)"
	ln -sf librserpool.so.$(VERSION) "$(DESTDIR)$(libdir)/librserpool.so.$(SOVERSION)"
	ln -sf librserpool.so.$(SOVERSION) "$(DESTDIR)$(libdir)/librserpool.so"
	ln -sf librserpool.so.$(SOVERSION) "$(DESTDIR)$(libdir)/librsplib.so"
	install -m 755 $(BUILD)/librserpool_preload.so "$(DESTDIR)$(libdir)/librserpool-preload.so"
	install -m 644 $(BUILD)/librserpool.a "$(DESTDIR)$(libdir)/"
	! command -v strip >/dev/null || strip --strip-debug "$(DESTDIR)$(libdir)/librserpool.a"
	install -m 644 include/rserpool/*.h "$(DESTDIR)$(includedir)/rserpool/"
	install -m 644 include/rserpool.hpp "$(DESTDIR)$(includedir)/"
	ln -sf "$$(realpath -m --relative-to="$(compatdir)" "$(libdir)")/librserpool.so.$(SOVERSION)" \
	    "$(DESTDIR)$(compatdir)/librsplib.so.3"
	sed -e 's|@prefix@|$(prefix)|; s|@libdir@|$(libdir)|; s|@includedir@|$(includedir)|; s|@version@|$(VERSION)|' \
	    rserpool.pc.in > "$(DESTDIR)$(pkgdir)/rserpool.pc"
	for page in $(TARGET)/man/*.[1-8]; do \
	    [ -e "$$page" ] || continue; \
	    install -D -m 644 "$$page" "$(DESTDIR)$(mandir)/man$${page##*.}/$${page##*/}"; done
	[ -n "$(DESTDIR)" ] || scripts/tell-loader "$(libdir)"

install-service: build
	install -d "$(DESTDIR)$(unitdir)" "$(DESTDIR)$(sysconfdir)/rserpool" "$(DESTDIR)$(prefix)/share/bash-completion/completions" \
	    "$(DESTDIR)$(prefix)/share/zsh/vendor-completions" "$(DESTDIR)$(prefix)/share/fish/vendor_completions.d"
	for unit in systemd/*.service; do \
	    sed -e 's|@bindir@|$(bindir)|g; s|@sysconfdir@|$(sysconfdir)|g' "$$unit" \
	        > "$(DESTDIR)$(unitdir)/$${unit#systemd/}" || exit 1; done
	[ -e "$(DESTDIR)$(sysconfdir)/rserpool/registrar.toml" ] || \
	    install -m 644 systemd/registrar.toml "$(DESTDIR)$(sysconfdir)/rserpool/"
	for program in rspregistrar rspctl; do \
	    case $$program in rspctl) word="completions " ;; *) word=--completions= ;; esac; \
	    $(BUILD)/$$program $${word}bash > "$(DESTDIR)$(prefix)/share/bash-completion/completions/$$program" && \
	    $(BUILD)/$$program $${word}zsh > "$(DESTDIR)$(prefix)/share/zsh/vendor-completions/_$$program" && \
	    $(BUILD)/$$program $${word}fish > "$(DESTDIR)$(prefix)/share/fish/vendor_completions.d/$$program.fish" || exit 1; \
	done

wheel: build
	scripts/needs pip3:python3-pip readelf:binutils
	scripts/wheel $(BUILD) $(TARGET)/wheel

deb:
	scripts/deb $(PROFILE)

test-packages:
	tests/deb/run
	tests/container/run

uninstall:
	rm -f "$(DESTDIR)$(bindir)/rspregistrar" "$(DESTDIR)$(bindir)/rspctl" \
	    "$(DESTDIR)$(libdir)"/librserpool.so* "$(DESTDIR)$(libdir)/librserpool.a" \
	    "$(DESTDIR)$(libdir)/librsplib.so" \
	    "$(DESTDIR)$(bindir)/.debug/rspregistrar.debug" "$(DESTDIR)$(bindir)/.debug/rspctl.debug" \
	    "$(DESTDIR)$(libdir)/.debug/librserpool.so.$(VERSION).debug" \
	    "$(DESTDIR)$(libdir)/librserpool-preload.so" \
	    "$(DESTDIR)$(compatdir)/librsplib.so.3" "$(DESTDIR)$(pkgdir)/rserpool.pc"
	rm -rf "$(DESTDIR)$(includedir)/rserpool" "$(DESTDIR)$(includedir)/rserpool.hpp"
	-rmdir "$(DESTDIR)$(bindir)/.debug" "$(DESTDIR)$(libdir)/.debug" 2>/dev/null
	for page in $(TARGET)/man/*.[1-8]; do \
	    rm -f "$(DESTDIR)$(mandir)/man$${page##*.}/$${page##*/}"; done

clean:
	$(CARGO) clean
