# The center: one image, whose roles are web, worker, beat and bootstrap. The engine has an image of its own (engine/).

FROM node:24-bookworm-slim AS assets
WORKDIR /build
COPY package.json package-lock.json ./
COPY scripts/assets scripts/
RUN scripts/assets

FROM python:3.13-slim-bookworm AS packages
COPY requirements.txt /build/
COPY engine /build/engine
# The engine too, by whose code a pipeline version is tried in the center.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --requirement /build/requirements.txt --requirement /build/engine/requirements.txt \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps /build/engine

FROM python:3.13-slim-bookworm
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OPSCENTER_BIND=0.0.0.0 \
    OPSCENTER_DATA=/data \
    OPSCENTER_STATIC=/app/collected
WORKDIR /app
COPY --from=packages /opt/venv /opt/venv
COPY . .
COPY --from=assets /build/static/vendor static/vendor
# /data belongs to the user, and a volume that is mounted there the first time takes that over.
RUN OPSCENTER_DATA=/tmp/build python manage.py collectstatic --noinput --verbosity 0 \
    && python -m compileall -q . \
    && rm -rf /tmp/build requirements.txt package.json package-lock.json scripts static engine \
    && mkdir static \
    && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin opscenter \
    && install --directory --owner 10001 --mode 0700 /data
USER 10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-m", "opscenter.health", "web"]
ENTRYPOINT ["python", "-m", "opscenter.roles"]
CMD ["web"]
