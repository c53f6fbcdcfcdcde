# Edgeyard's images, `control-plane` (operator, store, CLI), `worker` (optimizer, device-runner, runtimes, QEMU, firmware) and
# `compiler` (the worker, and vendors' compilers on top of its layers): nothing but the programs and the shared libraries they
# load, on an empty base.
#
# `cargo xtask images` builds them here with buildah. With docker: `cargo xtask images --stage`, then
#   docker build --file Dockerfile --target worker --tag edgeyard/worker:dev target/images/context/worker
#   docker build --file Dockerfile --target compiler --tag edgeyard/compiler:dev target/images/context/worker
# A context holds bin/{control-plane,worker}/, lib/, firmware/, vela/ and closure.sh, what is not for its image being empty.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS control-plane-files
COPY closure.sh /
COPY bin/control-plane/ /out/usr/bin/
RUN sh /closure.sh /out

FROM scratch AS control-plane
COPY --from=control-plane-files /out /
ENV PATH=/usr/bin HOME=/tmp
USER 65532:65532

FROM ${BASE} AS worker-files
# Empty where no board is emulated (the arm64 worker under user-mode emulation).
ARG QEMU=qemu-system-arm
# Backports are added to whatever mirror the base already uses; bookworm's own QEMU 7.2 counts, but is too old elsewhere.
RUN set -e; \
    if [ -n "$QEMU" ]; then \
      sed -i 's/^Suites: bookworm bookworm-updates.*/& bookworm-backports/' /etc/apt/sources.list.d/*.sources 2>/dev/null || true; \
      [ ! -e /etc/apt/sources.list ] || \
        sed -nE 's/^(deb .*) bookworm main.*/\1 bookworm-backports main/p' /etc/apt/sources.list >/etc/apt/sources.list.d/backports.list; \
      apt-get update; apt-get install -y --no-install-recommends -t bookworm-backports $QEMU libstdc++6; \
    elif ! ls /usr/lib/*-linux-gnu/libstdc++.so.6 >/dev/null 2>&1; then \
      apt-get update; apt-get install -y --no-install-recommends libstdc++6; \
    fi
COPY closure.sh /
COPY bin/worker/ /out/usr/bin/
COPY lib/ /out/opt/edgeyard/lib/
COPY firmware/ /out/opt/edgeyard/firmware/
RUN sh /closure.sh /out ${QEMU:+/usr/bin/$QEMU}

FROM scratch AS worker
COPY --from=worker-files /out /
ENV PATH=/usr/bin HOME=/tmp \
    EDGEYARD_ORT_LIB=/opt/edgeyard/lib/libonnxruntime.so \
    EDGEYARD_LITERT_LIB=/opt/edgeyard/lib/libLiteRt.so \
    EDGEYARD_QEMU_ARM=/usr/bin/qemu-system-arm \
    EDGEYARD_FIRMWARE_DIR=/opt/edgeyard/firmware \
    ORT_DISABLE_TELEMETRY=1
USER 65532:65532

# Not on worker-files, so that a new program does not install Python again.
FROM ${BASE} AS compiler-files
RUN apt-get update; apt-get install -y --no-install-recommends python3-numpy
COPY closure.sh /
COPY vela/ /out/opt/edgeyard/vela/
# Python and its standard library without what talks to networks, terminals and databases; numpy without its tests and compilers.
# What the worker has already, the C and C++ libraries first of all, must stay the worker's.
RUN set -e; \
    tar -C / -cf - --exclude='__pycache__' --exclude='tests' --exclude='*.pyi' --exclude='python3.11/dist-packages' \
      --exclude='python3.11/test' --exclude='pydoc_data' --exclude='_sysconfigdata_*' --exclude='*/sitecustomize.py' \
      --exclude='lib-dynload/_ssl*' --exclude='lib-dynload/_hashlib*' --exclude='lib-dynload/_sqlite3*' \
      --exclude='lib-dynload/_curses*' --exclude='lib-dynload/_dbm*' --exclude='lib-dynload/readline*' \
      --exclude='lib-dynload/nis*' --exclude='lib-dynload/_test*' --exclude='lib-dynload/_codecs_*' \
      --exclude='numpy/core/include' --exclude='numpy/core/lib' --exclude='numpy/distutils' --exclude='numpy/f2py' \
      usr/lib/python3.11 usr/lib/python3/dist-packages/numpy | tar -C /out -xf -; \
    mkdir -p /out/usr/bin; \
    printf '%s\n' '#!/usr/bin/python3.11 -IB' 'import sys' 'sys.path.insert(0, "/opt/edgeyard/vela")' \
      'from ethosu.vela.vela import main' 'sys.exit(main())' >/out/usr/bin/vela; \
    chmod 755 /out/usr/bin/vela; \
    sh /closure.sh /out /usr/bin/python3.11; \
    chroot /out /usr/bin/vela --version; \
    cd /out; rm -r etc tmp lib64 lib/*/libc.so.* lib/*/libm.so.* lib/*/libgcc_s.so.* lib/*/libstdc++.so.*

FROM worker AS compiler
COPY --from=compiler-files /out /
ENV EDGEYARD_VELA=/usr/bin/vela
