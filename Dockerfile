# hetseg as a BIDS App. Builds with docker, podman or buildah:
#
#   docker build -t hetseg .                                          CPU
#   docker build -t hetseg --build-arg TORCH=cu130 .                  NVIDIA GPU
#
# TORCH is the local version of PyTorch's wheel. PyPI has one build only; where the wheel comes
# from elsewhere, --build-arg PIP_EXTRA_INDEX_URL=... names the index (docs/containers.md).
FROM debian:bookworm-slim AS base
COPY container/install.sh /usr/local/lib/hetseg/install.sh
RUN /usr/local/lib/hetseg/install.sh system

FROM base AS build
ARG TORCH=cpu
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
COPY . /src
RUN /usr/local/lib/hetseg/install.sh app /src

FROM base
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="hetseg" \
      org.opencontainers.image.description="BIDS App: brain segmentation from T1w MRI that says where it may be wrong" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /opt/hetseg /opt/hetseg
ENV PATH=/opt/hetseg/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/opt/hetseg/cache/home \
    LANG=C.UTF-8 \
    MPLCONFIGDIR=/opt/hetseg/cache/matplotlib \
    HETSEG_CONTAINER=docker:hetseg:$VERSION
ENTRYPOINT ["hetseg"]
