# An image with `diffy`, the nightly script, an SSH client and certificates: `docker build -t diffy .`
#
# It runs as user 65532, and writes to /work and /tmp only, so that its root file system may be read-only:
#     docker run --rm --read-only --tmpfs /tmp -v "$PWD:/work" -u "$(id -u):$(id -g)" diffy analyze --fleet web
# A container sees its own processes and files: to collect this machine, run diffy on it.
FROM rust:1.94-slim-bookworm AS build
WORKDIR /src
COPY . .
# A cold build takes half an hour of processor time; the next one finds the dependencies built.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo install --locked --path . --root /out

FROM debian:bookworm-slim
# /work is of the user, also as the volume that a scheduler mounts there. Debian keeps one version of a package, the
# patched one, so none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 diffy \
    && useradd --uid 65532 --gid 65532 --home-dir /work --no-create-home --shell /usr/sbin/nologin diffy \
    && install -d -o diffy -g diffy -m 0700 /work
COPY --from=build /out/bin/diffy /usr/local/bin/diffy
COPY --chmod=0755 docs/scheduling/diffy-nightly /usr/local/bin/diffy-nightly
ENV HOME=/work
USER 65532:65532
WORKDIR /work
VOLUME ["/work", "/tmp"]
ENTRYPOINT ["diffy"]
CMD ["--help"]
