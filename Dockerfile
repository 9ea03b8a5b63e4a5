# The image of every Paqett process: `docker compose build`. The first stage installs as `make setup`
# does and makes the program; the second has what the program needs, and nothing else.
FROM debian:trixie-slim AS build
# the database is another container's
ENV PAQETT_DATABASE__URL=elsewhere
WORKDIR /src
COPY . .
RUN bash src/paqett/local/setup.sh && bash src/paqett/local/install.sh /opt/paqett

FROM debian:trixie-slim
# curl asks for the processes' health, postgresql-client is what `paqett admin backup` calls
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl mosquitto postgresql-client python3 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 paqett \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/paqett paqett \
 && mkdir /certs \
 && install -d -o paqett -g paqett -m 0750 /var/lib/paqett \
      /var/lib/paqett/backup /var/lib/paqett/broker /var/lib/paqett/exports /var/lib/paqett/ingest
COPY --from=build /opt/paqett /opt/paqett
ENV PATH=/opt/paqett/bin:$PATH \
    PAQETT_PAQETT__DATA_DIR=/var/lib/paqett
WORKDIR /var/lib/paqett
USER 10001:10001
CMD ["paqett", "api"]
