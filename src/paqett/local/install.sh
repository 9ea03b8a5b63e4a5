#!/bin/bash
# Installs Paqett for good, from the root of a clone on which `make setup` has run:
#   install.sh PREFIX        the program and nothing of its tests, into PREFIX (the Dockerfile does this)
#   install.sh --system      the same into /opt/paqett, a user for each process, units for systemd, and
#                            settings with new secrets in /etc/paqett; starts nothing, keeps what is there
#   install.sh --settings ETC  the settings alone, into the folder ETC
set -euo pipefail
export LC_ALL=C

say() { printf 'install: %s\n' "$*" >&2; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# What the program needs of constraints.txt, with its hashes: that file also has what the tests need.
program() {
  local prefix=$1 python
  say "the program, into $prefix"
  .venv/bin/python -m hatchling build -t wheel -d "$scratch" >/dev/null
  .venv/bin/python src/paqett/local/requirements.py constraints.txt >"$scratch/requirements.txt"
  python=$(readlink -f .venv/bin/python)
  if [ -x /usr/bin/python3 ] && /usr/bin/python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=/usr/bin/python3 # a service must not depend on somebody's home
  fi
  "$python" -m venv --clear "$prefix/venv"
  "$prefix/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
    --require-hashes -r "$scratch/requirements.txt"
  "$prefix/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$scratch"/*.whl
  mkdir -p "$prefix/bin"
  ln -sfn ../venv/bin/paqett "$prefix/bin/paqett"
  rm -rf "$prefix/docs" && cp -r docs "$prefix/docs"
}

secret() { od -An -N 24 -tx1 /dev/urandom | tr -d ' \n'; }

# keep FILE: its text from standard input, for its owner alone, unless it is there already
keep() {
  if [ -e "$1" ]; then
    say "kept: $1"
    cat >/dev/null
  else
    install -m 0600 /dev/stdin "$1"
    say "written: $1"
  fi
}

# value NAME FILE...: what the first of the files that has the setting says
value() {
  local name=$1
  shift
  { sed -n "s/^$name=//p" "$@" 2>/dev/null || true; } | head -n 1
}

settings() {
  local etc=$1 name broker at=127.0.0.1:5432/paqett
  local -A password=()
  mkdir -p "$etc"
  for name in api ingest worker broker; do password[$name]=$(secret); done
  if [ -e "$etc/migrate.env" ]; then # the database knows these already
    for name in api ingest worker; do
      password[$name]=$(sed -n "s/^PAQETT_ROLES__${name^^}_PASSWORD=//p" "$etc/migrate.env")
    done
  fi
  broker=$(value PAQETT_MQTT__PASSWORD "$etc"/{ingest,worker,broker,paqett}.env)
  password[broker]=${broker:-${password[broker]}}
  keep "$etc/paqett.env" <<END
# What every process is given, so no secrets: docs/install.md says which file each belongs to. Any other
# setting of config/paqett.toml can stand here as PAQETT_SECTION__KEY.
PAQETT_PAQETT__DATA_DIR=/var/lib/paqett
PAQETT_PAQETT__PUBLIC_URL=http://127.0.0.1:8080
# With a certificate, which api.env and broker.env name:
#PAQETT_PAQETT__PUBLIC_URL=https://iot.example.org
#PAQETT_BROKER__TLS_PORT=8883
END
  keep "$etc/migrate.env" <<END
# Over PostgreSQL's socket, as its user: see paqett-migrate.service.
PAQETT_DATABASE__URL=postgresql:///paqett?host=/run/postgresql&user=postgres
PAQETT_ROLES__API_PASSWORD=${password[api]}
PAQETT_ROLES__INGEST_PASSWORD=${password[ingest]}
PAQETT_ROLES__WORKER_PASSWORD=${password[worker]}
END
  keep "$etc/api.env" <<END
PAQETT_DATABASE__URL=postgresql://paqett_api:${password[api]}@$at
PAQETT_OPS__PORT=9480
# With a certificate, which the group paqett may read:
#PAQETT_HTTP__HOST=0.0.0.0
#PAQETT_HTTP__PORT=8443
#PAQETT_HTTP__TLS_CERT_FILE=/etc/paqett/tls/fullchain.pem
#PAQETT_HTTP__TLS_KEY_FILE=/etc/paqett/tls/privkey.pem
END
  keep "$etc/ingest.env" <<END
PAQETT_DATABASE__URL=postgresql://paqett_ingest:${password[ingest]}@$at
PAQETT_MQTT__PASSWORD=${password[broker]}
PAQETT_OPS__PORT=9481
END
  keep "$etc/worker.env" <<END
PAQETT_DATABASE__URL=postgresql://paqett_worker:${password[worker]}@$at
PAQETT_MQTT__PASSWORD=${password[broker]}
PAQETT_OPS__PORT=9482
END
  keep "$etc/broker.env" <<END
PAQETT_DATABASE__URL=postgresql://paqett_worker:${password[worker]}@$at
PAQETT_MQTT__PASSWORD=${password[broker]}
PAQETT_OPS__PORT=9483
# With a certificate, which the group paqett may read:
#PAQETT_BROKER__TLS_CERT_FILE=/etc/paqett/tls/fullchain.pem
#PAQETT_BROKER__TLS_KEY_FILE=/etc/paqett/tls/privkey.pem
END
  .venv/bin/python -m paqett.local.handing_out "$etc"
}

# What one user had before there was one for each process; what is a unit's own, systemd hands over.
# After tmpfiles.conf, which takes the folders themselves: whoever still runs as that user cannot put
# another in a folder's place while root changes what is in it.
carry_over() {
  local state=/var/lib/paqett
  if [ -d "$state/exports" ]; then
    chown -hR --from=paqett paqett-worker:paqett-api "$state/exports"
    find "$state/exports" -type f -user paqett-worker -exec chmod 0640 {} +
  fi
  if [ -d "$state/backup" ]; then
    chown -hR --from=paqett paqett-worker:paqett-worker "$state/backup"
    find "$state/backup" -type f -user paqett-worker -exec chmod 0660 {} +
  fi
}

system() {
  [ "$(id -u)" = 0 ] || { say "--system needs root"; exit 1; }
  program /opt/paqett
  install -D -m 0644 config/systemd/sysusers.conf /etc/sysusers.d/paqett.conf
  systemd-sysusers paqett.conf
  install -D -m 0644 config/systemd/tmpfiles.conf /etc/tmpfiles.d/paqett.conf
  systemd-tmpfiles --create paqett.conf
  carry_over
  install -m 0755 config/systemd/paqett-as /opt/paqett/bin/paqett-as
  install -m 0644 -t /etc/systemd/system config/systemd/*.service config/systemd/*.target
  install -D -m 0644 -t /etc/systemd/system/paqett-.service.d config/systemd/paqett-.service.d/*.conf
  settings /etc/paqett
  chmod 0755 /etc/paqett
  if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
  say "done; docs/install.md says what comes next"
}

if [ ! -f constraints.txt ] || [ ! -f pyproject.toml ]; then
  say "run this from the root of the repository"
  exit 1
fi
case ${1:-} in
  --system) system ;;
  --settings) settings "${2:?a folder}" ;;
  /*) program "$1" ;;
  *) say "see the head of this file"; exit 2 ;;
esac
