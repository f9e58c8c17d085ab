ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS builder
WORKDIR /app
COPY requirements.txt /tmp/
COPY heimdall.py LICENSE ./
COPY heimdall_lib ./heimdall_lib
# The file system may be read-only and the user owns nothing in it, so the bytecode is made here: from the sources'
# content, not their times, so that two builds hold the same.
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --quiet --no-cache-dir --disable-pip-version-check \
    --no-compile --only-binary :all: --require-hashes --requirement /tmp/requirements.txt \
 && find /opt/venv \( -name tests -o -name '*.[ch]' -o -name '*.[ch]pp' -o -name '*.pyx' \) -prune -exec rm -rf {} + \
 && python -m compileall -q --invalidation-mode unchecked-hash heimdall_lib /opt/venv

FROM python:${PYTHON_VERSION}-slim
ARG VERSION=0.1.0
# Where the sources are, which commit they are, and when that was made: `make image` says so.
ARG SOURCE=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="Heimdall" \
      org.opencontainers.image.description="A caching DNS server whose replicas share one cache" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HEIMDALL_BIND_ADDR=0.0.0.0:1053 \
    HEIMDALL_HTTP_BIND_ADDR=0.0.0.0:8080
WORKDIR /app
COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /app /app
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 1053/udp 1053/tcp 8080/tcp
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-m", "heimdall_lib.healthcheck"]
ENTRYPOINT ["python", "heimdall.py"]
