FROM debian:trixie-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends mosquitto python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --home-dir /var/lib/paqett paqett
WORKDIR /opt/paqett
COPY pyproject.toml constraints.txt README.md hatch_build.py ./
COPY assets assets
COPY src src
COPY sql sql
COPY config config
COPY docs docs
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --require-hashes -r constraints.txt \
 && /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .
ENV PATH=/opt/venv/bin:$PATH
USER paqett
CMD ["paqett", "up"]
