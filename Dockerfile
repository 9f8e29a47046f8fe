# One image for every process: `switchboard migrate | ingress | worker | delivery | console | doctor`.
#
# 3.13: every locked dependency has a wheel for it, so nothing is compiled and the last stage needs no compiler.
# No tini: PID 1 is our process, which handles SIGTERM itself and starts no children.

FROM python:3.13-slim-trixie AS build
WORKDIR /build
COPY requirements.txt deploy/requirements-build.txt ./
# The environment gets no pip of its own: nothing can be installed into it later.
RUN python -m venv --without-pip /opt/switchboard \
 && pip --disable-pip-version-check --no-cache-dir --python /opt/switchboard/bin/python \
        install --require-hashes --only-binary=:all: -r requirements.txt \
 && pip --disable-pip-version-check --no-cache-dir install --require-hashes --only-binary=:all: -r requirements-build.txt
COPY pyproject.toml ./
COPY sql sql
COPY shared shared
COPY agents agents
COPY ingress ingress
COPY workers workers
COPY ops ops
RUN pip --disable-pip-version-check --no-cache-dir wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && pip --disable-pip-version-check --no-cache-dir --python /opt/switchboard/bin/python install --no-deps /wheels/*.whl

FROM python:3.13-slim-trixie
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Switchboard" \
      org.opencontainers.image.description="A queue-backed chat backend." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /opt/switchboard /opt/switchboard
# In a container the address to listen on is every interface; who may reach it is the platform's business.
ENV PATH=/opt/switchboard/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SWITCHBOARD_HOST=0.0.0.0
# A number, so that Kubernetes can see that it is not root. Nothing is written: the root file system may be read-only.
USER 10001:10001
WORKDIR /opt/switchboard
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["switchboard"]
CMD ["--help"]
