# In the place of TimescaleDB's image where none can be pulled: Debian's packages, Apache edition.
FROM debian:trixie-slim
RUN groupadd --gid 70 postgres && useradd --uid 70 --gid 70 --home-dir /var/lib/postgresql postgres \
 && apt-get update && apt-get install -y --no-install-recommends postgresql-17-timescaledb \
 && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/* \
 && install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data
COPY database.sh /database.sh
ENV PATH=/usr/lib/postgresql/17/bin:$PATH PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["bash", "/database.sh"]
