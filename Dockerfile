# The `tokenpool` command and nothing else: the sidecar (`serve`) and the simulated server (`sim`) run from it.
FROM python:3.11-slim AS build
WORKDIR /build
RUN pip install --quiet --no-cache-dir uv==0.13.9 && python -m venv --without-pip /opt/tokenpool
# Wheels only: nothing is compiled here, and no compiler is wanted.
COPY requirements-runtime.lock ./
RUN uv pip install --quiet --no-cache --python /opt/tokenpool/bin/python --compile-bytecode \
      --only-binary :all: --require-hashes -r requirements-runtime.lock
COPY pyproject.toml README.md LICENSE requirements.lock ./
COPY extproc extproc
# requirements.lock knows the build tools' hashes, too.
RUN uv build --quiet --no-cache --wheel --build-constraints requirements.lock --require-hashes --out-dir dist . \
 && uv pip install --quiet --no-cache --python /opt/tokenpool/bin/python --compile-bytecode --no-deps dist/*.whl

FROM python:3.11-slim
ENV PATH=/opt/tokenpool/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/tokenpool /opt/tokenpool
USER 65532:65532
EXPOSE 50051 9464
ENTRYPOINT ["tokenpool"]
