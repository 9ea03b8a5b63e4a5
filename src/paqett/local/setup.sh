#!/bin/bash
# Makes a bare Debian 12 or 13 machine ready for Paqett; `make setup` runs it from the repository root.
# With --tests it also brings the browser in which the pages are tried, what the files in config/nginx,
# config/systemd and config/prometheus are tried with, and the tests' own npm packages: they need no network then.
# It installs what is missing (as root), starts no service, and does nothing the second time.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "FAILED: $1"; say "what to do: $2"; exit 1; }

# run WHAT HINT COMMAND...: the command's output is shown only where it fails
run() {
  local what=$1 hint=$2
  shift 2
  "$@" >"$scratch/log" 2>&1 </dev/null || { tail -n 25 "$scratch/log" >&2; die "$what" "$hint"; }
}

step() {
  local title=$1 start=$SECONDS
  shift
  say "$title ..."
  "$@"
  say "$title: $((SECONDS - start)) s"
}

scratch=$(mktemp -d)
trap 'unguard_services; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM HUP

# --- what is there -----------------------------------------------------------------------------

find_python() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

have_mosquitto() { command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ]; }

have_nginx() { command -v nginx >/dev/null || [ -x /usr/sbin/nginx ]; }

# The major versions of the installed PostgreSQL servers, newest first.
servers() {
  local bin
  for bin in /usr/lib/postgresql/*/bin/postgres; do
    if [ -x "$bin" ]; then echo "$bin" | cut -d/ -f5; fi
  done | sort -rn
}

have_timescaledb() {
  local version
  for version in $(servers); do
    [ -e "/usr/share/postgresql/$version/extension/timescaledb.control" ] && return
  done
  return 1
}

database_elsewhere() { [ -n "${PAQETT_DATABASE__URL:-}${PAQETT_DATABASE__URL_FILE:-}" ]; }

# --- Debian packages ---------------------------------------------------------------------------

# The newest packaged TimescaleDB, or the one for a server that is already here.
packaged_timescaledb() {
  local names version
  names=$(apt-cache --names-only search '^postgresql-[0-9]+-timescaledb$' | cut -d' ' -f1 | sort -rV)
  for version in $(servers); do
    if grep -x "postgresql-$version-timescaledb" <<<"$names"; then return; fi
  done
  echo "${names%%$'\n'*}"
}

# Installing a package must start no service and create no cluster; both guards go when apt is done.
policy=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d/paqett-setup.conf
guard_services() {
  if [ -e $policy ] && ! grep -q 'paqett setup' $policy; then mv $policy $policy.paqett-kept; fi
  printf '#!/bin/sh\n# for the time of the paqett setup only\nexit 101\n' >$policy
  chmod 755 $policy
  if [[ "$*" == *postgresql-* ]]; then
    mkdir -p "${no_cluster%/*}"
    echo 'create_main_cluster = false' >$no_cluster
  fi
}
unguard_services() {
  # Only what carries our mark: the machine may have a policy of its own.
  if grep -qs 'paqett setup' $policy; then rm -f $policy $no_cluster; fi
  if [ -e $policy.paqett-kept ]; then mv $policy.paqett-kept $policy; fi
}

install_packages() {
  local wanted=("$@")
  guard_services "${wanted[@]}"
  run "apt-get could not install: ${wanted[*]}" "see the lines above; then run this again" \
    apt-get install -qq -y --no-install-recommends --no-upgrade --no-remove \
    -o DPkg::Lock::Timeout=120 "${wanted[@]}"
  unguard_services
  # A broker or a proxy of the system's own would take our ports at the next boot.
  local service
  for service in mosquitto nginx; do
    if [[ " ${wanted[*]} " == *" $service "* ]]; then
      run "the system's own $service could not be switched off" "see the lines above" update-rc.d "$service" disable
    fi
  done
}

debian_packages() {
  local wanted=() packaged
  find_python >/dev/null || wanted+=(python3 python3-venv)
  have_mosquitto || wanted+=(mosquitto)
  command -v curl >/dev/null || wanted+=(curl ca-certificates)
  command -v mosquitto_pub >/dev/null || wanted+=(mosquitto-clients)
  if [ "$for_tests" = yes ]; then
    command -v chromium >/dev/null || wanted+=(chromium)
    have_nginx || wanted+=(nginx)
    command -v systemd-analyze >/dev/null || wanted+=(systemd)
  fi
  if ! database_elsewhere && ! have_timescaledb; then
    wanted+=(timescaledb)
  fi
  if [ ${#wanted[@]} = 0 ]; then return; fi

  command -v apt-get >/dev/null ||
    die "this is not Debian, and these are missing: ${wanted[*]}" \
      "install them with your system's tools: Python 3.11, Mosquitto 2, PostgreSQL 15 to 18 with TimescaleDB"
  [ "$(id -u)" = 0 ] ||
    die "these are missing: ${wanted[*]}" "run 'make setup' once as root"

  run "apt-get update failed" "check /etc/apt and the network; then run this again" \
    apt-get update -qq -o DPkg::Lock::Timeout=120

  if [[ " ${wanted[*]} " == *" timescaledb "* ]]; then
    unset 'wanted[-1]'
    packaged=$(packaged_timescaledb)
    if [ -n "$packaged" ]; then
      wanted+=("$packaged")
    else
      build_from=$(servers | sed -n 1p)
      if [ -z "$build_from" ]; then
        build_from=$(apt-cache show --no-all-versions postgresql | sed -n 's/^Version: \([0-9]*\).*/\1/p')
        wanted+=("postgresql-$build_from")
      fi
      command -v xz >/dev/null || wanted+=(xz-utils)
      command -v gcc >/dev/null || wanted+=(gcc libc6-dev)
      command -v make >/dev/null || wanted+=(make)
      command -v cmake >/dev/null || wanted+=(cmake)
    fi
  fi
  if [ ${#wanted[@]} != 0 ]; then
    say "installing: ${wanted[*]}"
    install_packages "${wanted[@]}"
  fi
}

# Prometheus's own test of the alert rules. Installed, its package would start a server at each boot and
# make a dozen packages: one program is taken out of it. Tests that miss it are skipped, and say so.
have_promtool() { [ -x .cache/promtool ] || command -v promtool >/dev/null; }
rule_tests() {
  if have_promtool; then return; fi
  mkdir -p .cache "$scratch/prometheus"
  if ! take_out_promtool "$scratch/prometheus" >"$scratch/log" 2>&1 </dev/null; then
    tail -n 5 "$scratch/log" >&2
    say "no promtool: the tests of the alert rules will be skipped"
  fi
}
take_out_promtool() {
  local package=prometheus # on Debian 12
  if apt-cache show promtool >"$scratch/log" 2>&1; then package=promtool; fi
  (cd "$1" && fetch_package $package && dpkg-deb --fsys-tarfile "$package"_*.deb |
    tar -xO ./usr/bin/promtool >promtool && chmod 755 promtool && ./promtool --version) &&
    mv "$1/promtool" .cache/promtool
}
fetch_package() {
  local fetch=(apt-get download -qq -o APT::Sandbox::User=root "$1")
  "${fetch[@]}" || { apt-get update -qq -o DPkg::Lock::Timeout=120 && "${fetch[@]}"; }
}

# --- TimescaleDB from source, where Debian has no package of it (Debian 12) ----------------------

# The headers alone: the development package itself would bring clang and LLVM. They must not be newer
# than the server, which may lack what a newer minor version's headers call.
fetch_headers() {
  local version=$1 installed candidate
  installed=$(dpkg-query -W -f '${Version}' "postgresql-$version")
  for candidate in $(apt-cache madison "postgresql-server-dev-$version" | awk '{print $3}'); do
    if dpkg --compare-versions "$candidate" le "$installed"; then
      run "apt-get could not fetch the headers of PostgreSQL $version" "check the network; then run this again" \
        apt-get download -qq -o APT::Sandbox::User=root "postgresql-server-dev-$version=$candidate"
      dpkg-deb -x postgresql-server-dev-*.deb headers
      return
    fi
  done
  die "no headers for PostgreSQL $installed are offered any more" \
    "apt-get install --only-upgrade postgresql-$version; then run this again"
}

# Debian 13's source package, by an apt of our own, so that the system's configuration stays as it is.
fetch_source() {
  local mirror hint="check that your Debian mirror has Debian 13 (trixie) and debian-archive-keyring is current"
  # shellcheck disable=SC2016 # apt-get fills it in
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' |
    awk '!/^cdrom:/ && !seen++')
  [ -n "$mirror" ] || die "apt knows no Debian mirror" "add one to /etc/apt; then run this again"
  mkdir -p apt/parts apt/lists apt/cache
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >apt/sources.list
  local private=(-qq -o APT::Sandbox::User=root -o APT::Default-Release=
    -o "Dir::Etc::SourceList=$PWD/apt/sources.list" -o "Dir::Etc::SourceParts=$PWD/apt/parts"
    -o "Dir::State::Lists=$PWD/apt/lists" -o "Dir::Cache=$PWD/apt/cache")
  run "the list of Debian 13's sources could not be fetched" "$hint" apt-get "${private[@]}" update
  run "TimescaleDB's source could not be fetched" "$hint" apt-get "${private[@]}" source --download-only timescaledb
  mkdir source
  tar -xf timescaledb_*.orig.tar.* -C source --strip-components=1
}

build_timescaledb() {
  local version=$1 hint="see the lines above; PAQETT_DATABASE__URL can name a TimescaleDB server elsewhere instead"
  cd "$scratch"
  fetch_headers "$version"
  fetch_source
  local headers=$PWD/headers/usr/include/postgresql/$version/server
  run "TimescaleDB could not be configured" "$hint" \
    cmake -S source -B build -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE='-O2 -g0 -DNDEBUG' -DAPACHE_ONLY=1 \
    -DUSE_OPENSSL=OFF -DUSE_TELEMETRY=OFF -DSEND_TELEMETRY_DEFAULT=OFF \
    -DREGRESS_CHECKS=OFF -DTAP_CHECKS=OFF -DWARNINGS_AS_ERRORS=OFF -DGENERATE_DOWNGRADE_SCRIPT=OFF \
    -DPG_CONFIG="/usr/lib/postgresql/$version/bin/pg_config" -DPG_INCLUDEDIR="$headers" -DPG_INCLUDEDIR_SERVER="$headers"
  run "TimescaleDB could not be built" "$hint" make -C build -j "$(nproc)"
  run "TimescaleDB could not be installed" "$hint" make -C build install
  cd "$OLDPWD"
}

# --- Python --------------------------------------------------------------------------------------

python_environment() {
  local stamp=.venv/.constraints.sha256 sum python
  # The folder's name is in the sum because an environment works only where it was made.
  sum=$({ pwd; cat constraints.txt pyproject.toml hatch_build.py assets/package-lock.json; } | sha256sum)
  if [ "$(cat $stamp 2>/dev/null)" = "$sum" ] && [ -e src/paqett/web/static/vendor/.sum ] &&
    .venv/bin/python -c ''; then return; fi

  python=$(find_python) || die "no Python 3.11 or newer with its venv module" "apt-get install python3 python3-venv"
  .venv/bin/python -c '' 2>/dev/null ||
    run "the virtual environment could not be made" "remove .venv; then run this again" "$python" -m venv --clear .venv
  local pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
  run "the Python packages could not be installed" "check the network and pip's configuration; then run this again" \
    "${pip[@]}" --require-hashes -r constraints.txt
  # which also fetches the two scripts of the pages, by npm (hatch_build.py)
  run "Paqett itself could not be installed" "see the lines above" "${pip[@]}" --no-deps --no-build-isolation -e .
  echo "$sum" >$stamp
}

# axe-core, which looks at the pages, and TimescaleDB's Community edition in WebAssembly.
npm_packages() {
  local folder
  for folder in tests/pages tests/community; do
    if [ $folder/node_modules/.package-lock.json -nt $folder/package-lock.json ]; then continue; fi # npm's last file
    (PATH="$PWD/.venv/bin:$PATH" && cd $folder &&
      run "the packages of $folder could not be installed" "check the network and npm's configuration; then run this again" \
        npm ci --ignore-scripts --no-audit --no-fund)
    touch $folder/node_modules/.package-lock.json
  done
}

# --- all of it -----------------------------------------------------------------------------------

if [ ! -f constraints.txt ] || [ ! -f pyproject.toml ]; then
  die "constraints.txt and pyproject.toml are not here" "run this from the root of the repository"
fi

build_from=
for_tests=no
if [ "${1:-}" = --tests ]; then for_tests=yes; fi
step "Debian packages" debian_packages
if [ -n "$build_from" ]; then step "TimescaleDB for PostgreSQL $build_from, from Debian 13's source" build_timescaledb "$build_from"; fi
if [ $for_tests = yes ]; then step "promtool" rule_tests; fi
step "Python packages in .venv" python_environment
if [ $for_tests = yes ]; then step "npm packages of the tests" npm_packages; fi
say "ready, $SECONDS s in all"
