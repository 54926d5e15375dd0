# syntax=docker/dockerfile:1
# Build the wheel, then copy it into a slim image that runs as a user without rights.
# The image contains PyAV, whose wheel bundles FFmpeg with libx264 and libx265 (GPL): treat an image you
# distribute accordingly. gb28181gw itself is Apache-2.0 and bundles neither.
FROM python:3.11-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python -m venv /opt/gb28181gw \
 && /opt/gb28181gw/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt -r requirements/runtime.txt
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY native native
COPY gb28181gw gb28181gw
RUN /opt/gb28181gw/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
 && /opt/gb28181gw/bin/pip uninstall -y cmake nanobind ninja scikit-build-core \
 && /opt/gb28181gw/bin/python -c "from gb28181gw.media.native import is_built; assert is_built()"

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/gb28181gw --create-home gb28181gw
COPY --from=build /opt/gb28181gw /opt/gb28181gw
COPY config/gb28181gw.toml /etc/gb28181gw/gb28181gw.toml
ENV PATH=/opt/gb28181gw/bin:$PATH GB28181GW_DATA_DIR=/var/lib/gb28181gw
USER 10001
VOLUME /var/lib/gb28181gw
# Media ports (20000-29999/udp+tcp) are many: run with host networking, as the how-to says.
EXPOSE 5060/udp 5060/tcp 18081/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:18080/healthz', timeout=2)"]
ENTRYPOINT ["gb28181gw"]
CMD ["serve", "--config", "/etc/gb28181gw/gb28181gw.toml"]
