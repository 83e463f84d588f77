# Two images from one file: `--target api` (no ONNX Runtime, no PyTorch) and `--target worker` (the engine's runtimes).
FROM python:3.11-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
WORKDIR /opt/accel
RUN useradd --system --uid 10001 --home-dir /var/lib/accel --create-home accel \
    && mkdir -p /var/lib/accel/files /var/lib/accel/scratch && chown -R accel /var/lib/accel
COPY pyproject.toml constraints.txt README.md ./
COPY accel accel
COPY store store
COPY migrations migrations
COPY api api
COPY workers workers
COPY client client

FROM base AS api
RUN pip install --constraint constraints.txt .
USER accel
EXPOSE 8000
CMD ["python", "-m", "uvicorn", "--factory", "api.main:create_app", "--host", "0.0.0.0", "--port", "8000", "--no-access-log"]

FROM base AS worker
RUN apt-get update && apt-get install -y --no-install-recommends libseccomp2 && rm -rf /var/lib/apt/lists/* \
    && pip install --constraint constraints.txt ".[engine,training]"
USER accel
CMD ["python", "-m", "celery", "-A", "workers.app", "worker", "-Q", "cpu", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
