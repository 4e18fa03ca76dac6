# `molmopoint serve` in a container; compose.yaml has its settings, docs/serving.md tells how to use both.
#
# torch of the usual index brings CUDA's libraries and runs on processors as well. TORCH_INDEX names an index whose
# torch is for processors alone, which makes a much smaller image.

FROM python:3.12-slim-bookworm AS build
ARG EXTRAS=serve,video,quantize
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/molmopoint
ENV PATH=/opt/molmopoint/bin:$PATH
# Before the sources, so that a change of them does not fetch torch again. setup.py says which versions go.
# hadolint ignore=DL3013
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision
WORKDIR /src
COPY . .
# hadolint ignore=DL3013
RUN pip install ".[${EXTRAS}]"

FROM python:3.12-slim-bookworm
RUN useradd --system --create-home --uid 10001 molmopoint \
    && install --directory --owner=molmopoint /models
COPY --from=build /opt/molmopoint /opt/molmopoint
# Weights of the hub are kept in the volume; nothing else is written but to /tmp.
ENV PATH=/opt/molmopoint/bin:$PATH HF_HOME=/models PYTHONUNBUFFERED=1
VOLUME /models
USER 10001
WORKDIR /home/molmopoint
EXPOSE 8000
# 200 once the models are loaded, 503 before; a large model takes minutes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["molmopoint"]
CMD ["serve", "nano", "--host", "0.0.0.0", "--port", "8000"]
