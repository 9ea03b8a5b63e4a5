# What TimescaleDB's image does when it starts: the first time it makes the cluster and the database.
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --auth-host=scram-sha-256 --auth-local=trust --encoding=UTF8 --locale=C.UTF-8 \
    --pwfile=<(echo "$POSTGRES_PASSWORD") >/dev/null
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
  pg_ctl --wait --options="-c listen_addresses=" start
  createdb --username=postgres "$POSTGRES_DB"
  pg_ctl --wait stop
fi
exec "$@"
