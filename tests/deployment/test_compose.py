"""compose.yaml and the Dockerfile, held to the code they run: no engine and no image is needed."""

import json
import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from paqett import cli, ops
from paqett.broker import files
from paqett.local import postgres
from paqett.settings import Settings, load
from paqett.web import health
from paqett.web.exposure import check_listener, check_ops_listener

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, one in SERVICES.items() if one.get("image") == "paqett"]
PROCESSES = [name for name in OURS if SERVICES[name]["command"][0] == "paqett"]
ONE_SHOTS = ("migrate", "doctor")
VARIABLE = re.compile(r"\$\{(\w+)(?:(:[?-])([^}]*))?\}")
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|KEY")


def filled(text: str) -> str:
    """As Compose fills it in, where every variable that must be set is the word `set`."""

    def value(found: re.Match[str]) -> str:
        return found[3] if found[2] == ":-" else "set"

    return VARIABLE.sub(value, text)


def environ(name: str) -> dict[str, str]:
    return {key: filled(text) for key, text in SERVICES[name].get("environment", {}).items()}


def settings_of(name: str, **more: str) -> Settings:
    return load({**environ(name), "PAQETT_PAQETT__DATA_DIR": "/var/lib/paqett", **more})


def postgresql_conf(text: str) -> dict[str, str]:
    pairs = re.findall(r"^([\w.]+) = '?([^'\n]*)'?$", text, re.MULTILINE)
    return {name: value for name, value in pairs if "{" not in value}


@pytest.mark.parametrize("name", PROCESSES)
def test_each_process_has_a_command_and_settings_that_there_are(name: str) -> None:
    cli.parser().parse_args(SERVICES[name]["command"][1:])
    settings = settings_of(name)
    assert settings.database.url.startswith("postgresql://")
    check_listener(settings.http)
    check_ops_listener(settings)
    if name not in ONE_SHOTS:
        assert urlsplit(settings.database.url).username != "postgres", "each has its own role"
        assert settings.public_url == "https://set"


def test_the_roles_sign_in_with_the_passwords_migrate_gives_them() -> None:
    def variable(name: str, key: str) -> str:
        found = VARIABLE.search(SERVICES[name]["environment"][key])
        assert found is not None
        return found[1]

    for role, users in {
        "api": ["api"],
        "ingest": ["ingest"],
        "worker": ["worker", "broker"],
    }.items():
        given = variable("migrate", f"PAQETT_ROLES__{role.upper()}_PASSWORD")
        for user in users:
            url = urlsplit(settings_of(user).database.url)
            assert (url.username, url.hostname) == (f"paqett_{role}", "database")
            assert variable(user, "PAQETT_DATABASE__URL") == given
    superuser = variable("migrate", "PAQETT_DATABASE__URL")
    assert superuser == VARIABLE.search(SERVICES["database"]["environment"]["POSTGRES_PASSWORD"])[1]
    asking = {variable(name, "PAQETT_MQTT__PASSWORD") for name in ("broker", "ingest", "worker")}
    assert len(asking) == 1


def test_no_secret_stands_in_the_file_and_none_has_a_default() -> None:
    for name, one in SERVICES.items():
        for key, text in one.get("environment", {}).items():
            found = VARIABLE.search(text)
            if SECRET.search(key) and "_KEY_FILE" not in key:
                assert found is not None, f"{name} {key}"
            if found and SECRET.search(found[1]):
                needed = name != "grafana" or found[1] == "PAQETT_GRAFANA_PASSWORD"
                assert (found[2], found[3] == "") == ((":?", False) if needed else (":-", True))
            for user, password in re.findall(r"//([^:@/]+):([^@]+)@", text):
                assert password.startswith("${"), f"{name}: {user}"


def test_each_service_is_no_root_cannot_change_its_files_and_comes_back() -> None:
    for name, one in SERVICES.items():
        assert str(one["user"]).split(":")[0] not in ("0", "root"), name
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in one, name
        if name not in ONE_SHOTS:
            assert one["restart"] == "unless-stopped", name
        if one["image"] != "paqett":
            assert re.search(r":v?\d+\.\d+", one["image"]), f"{name}: a version, not the newest"


def test_each_service_says_whether_it_is_well_and_waits_for_those_that_are() -> None:
    for name, one in SERVICES.items():
        assert ("healthcheck" in one) == (name not in ONE_SHOTS), name
        for other, how in one.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONE_SHOTS else "service_healthy"
            assert how == {"condition": wanted}, f"{name} → {other}"
    for name in ("api", "ingest", "worker", "broker"):
        assert "migrate" in SERVICES[name]["depends_on"]


@pytest.mark.parametrize("name", ["api", "ingest", "worker", "broker"])
def test_health_is_asked_where_the_process_answers(name: str) -> None:
    settings = settings_of(name)
    (asked,) = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", str(SERVICES[name]["healthcheck"]))
    if name == "api":
        assert int(asked[0]) == settings.http.port
        assert asked[1] in health.healthz.paths | health.readyz.paths
    else:
        assert int(asked[0]) == settings.ops.port
        assert not answers(asked[1]).startswith("404")
        assert answers("/none").startswith("404")


def answers(path: str) -> str:
    """The status with which a process answers its operator."""
    said: list[str] = []
    ops.application(ops.Health())({"PATH_INFO": path}, lambda status, _: said.append(status))
    return said[0]


def test_the_broker_can_be_started_as_it_is_set_and_shares_its_loopback() -> None:
    settings = settings_of("broker")
    conf = files.mosquitto_conf(settings.broker, settings.mqtt, Path("/x"), "paqett")
    assert f"listener {settings.mqtt.port} 127.0.0.1\n" in conf
    assert "listener 1883 127.0.0.1\n" in conf, "plain MQTT stays inside"
    assert SERVICES["mqtt"]["ports"] == ["8883:8883"]
    assert "\nlistener 8883\n" in conf
    sharing = {n for n, one in SERVICES.items() if one.get("network_mode") == "service:mqtt"}
    assert sharing == {"broker", "ingest", "worker", "doctor"}
    ports = [settings_of(name).ops.port for name in ("broker", "ingest", "worker")]
    assert len(set(ports)) == 3, "they share loopback"


def test_the_proxy_listens_where_it_is_published_and_is_the_only_one_believed() -> None:
    nginx = (ROOT / "config/nginx/nginx.conf").read_text()
    listening = set(re.findall(r"listen (\d+)", nginx))
    published = {port.split(":")[1] for port in SERVICES["proxy"]["ports"]}
    assert published == listening == {"8443", "8080"}
    api = settings_of("api")
    upstream = re.search(r"http://(\w+):(\d+);", nginx)
    assert upstream is not None
    assert (upstream[1], int(upstream[2])) == ("api", api.http.port)
    place = SERVICES["proxy"]["networks"]["outside"]["ipv4_address"]
    assert api.http.trusted_proxies == place
    (ipam,) = COMPOSE["networks"]["outside"]["ipam"]["config"]
    assert place.rpartition(".")[0] == ipam["subnet"].rpartition(".")[0]
    assert "location = /healthz" in nginx
    assert "127.0.0.1:8080/healthz" in str(SERVICES["proxy"]["healthcheck"])
    for name, one in SERVICES.items():
        if name not in ("proxy", "mqtt"):
            assert all(port.startswith("127.0.0.1:") for port in one.get("ports", [])), name


def test_what_is_mounted_is_there_and_each_process_keeps_what_is_its_own() -> None:
    for name, one in SERVICES.items():
        for volume in one.get("volumes", []):
            source, target = filled(volume).split(":")[:2]
            if source.startswith("./") and source != "./tls":
                assert (ROOT / source).exists(), name
            elif not source.startswith("./"):
                assert source in COMPOSE["volumes"], name
            assert target.startswith("/")
    mounts = {name: " ".join(SERVICES[name].get("volumes", [])) for name in PROCESSES}
    assert "/var/lib/paqett/ingest" in mounts["ingest"], "its spool"
    assert "broker:/var/lib/paqett/broker" in mounts["broker"]
    assert "state:/var/lib/paqett" in mounts["api"], "archives, which the worker writes"
    assert "state:/var/lib/paqett" in mounts["worker"]
    for name in ("broker", "doctor"):
        assert f":{Path(settings_of(name).broker.tls_cert_file).parent}:ro" in mounts[name]


def test_postgresql_is_set_as_our_file_says_and_logs_nothing_of_anybodys() -> None:
    shipped = postgresql_conf((ROOT / "config/postgresql/paqett.conf").read_text())
    flags = dict(flag[2:].split("=", 1) for flag in SERVICES["database"]["command"][1:])
    sized = {"shared_buffers"}
    assert flags == {name: value for name, value in shipped.items() if name not in sized}
    ours = postgresql_conf(postgres._CONF)
    for name in set(ours) & set(shipped) | {name for name in ours if name.startswith("log_")}:
        assert shipped[name] == ours[name], name


def test_grafana_is_given_what_its_data_sources_ask_for() -> None:
    asked: set[str] = set()
    for path in (ROOT / "config/grafana/provisioning/datasources").glob("*.yaml"):
        asked |= set(re.findall(r"\$\{(PAQETT_\w+)\}", path.read_text()))
    assert asked
    assert asked <= set(SERVICES["grafana"]["environment"])
    provider = (ROOT / "config/grafana/provisioning/dashboards/paqett.yaml").read_text()
    mounts = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert any(f"path: {target}\n" in provider for target in mounts)


def networks_of(name: str) -> set[str]:
    """Those whose services reach it; who shares another's has none of its own."""
    return set(SERVICES[name].get("networks", []))


def test_prometheus_is_for_whoever_asks_for_it_and_keeps_what_it_has() -> None:
    one = SERVICES["prometheus"]
    assert one["profiles"] == ["metrics"]
    flags = dict(flag[2:].split("=", 1) for flag in one["command"])
    mounts = dict(volume.removesuffix(":ro").split(":") for volume in one["volumes"])
    folders = {target: source for source, target in mounts.items()}
    config = Path(flags["config.file"])
    assert (ROOT / folders[str(config.parent)] / config.name).exists()
    assert "./config/prometheus:/etc/prometheus:ro" in one["volumes"]
    assert folders[flags["storage.tsdb.path"]] in COMPOSE["volumes"]
    assert "127.0.0.1:9090/-/ready" in str(one["healthcheck"])


def test_prometheus_finds_each_process_where_it_answers_once_that_is_asked_for() -> None:
    """Until then each answers itself alone."""
    scraped = yaml.safe_load((ROOT / "config/prometheus/compose.yml").read_text())
    for job in scraped["scrape_configs"]:
        name = job["job_name"].removeprefix("paqett-")
        ((target,),) = (one["targets"] for one in job["static_configs"])
        host, _, port = target.partition(":")
        shared = SERVICES[name].get("network_mode", f"service:{name}")
        assert shared == f"service:{host}"
        assert networks_of(host) & networks_of("prometheus")
        alone = settings_of(name)
        assert (alone.ops.host, str(alone.ops.port)) == ("127.0.0.1", port)
        variable = VARIABLE.search(SERVICES[name]["environment"]["PAQETT_OPS__HOST"])
        assert variable is not None
        assert variable[1] in (ROOT / "docs/operations.md").read_text()
        check_ops_listener(settings_of(name, PAQETT_OPS__HOST="0.0.0.0"))
        assert all(port not in one for one in SERVICES[host].get("ports", [])), "not outside"
    assert len(scraped["scrape_configs"]) == 4


def test_the_operators_dashboard_has_its_data_source() -> None:
    (source,) = yaml.safe_load(
        (ROOT / "config/grafana/provisioning/datasources/paqett-prometheus.yaml").read_text()
    )["datasources"]
    assert source["type"] == "prometheus"
    url = urlsplit(environ("grafana")[VARIABLE.search(source["url"])[1]])
    assert (url.hostname, url.port) == ("prometheus", 9090)
    assert networks_of("grafana") & networks_of("prometheus")
    board = json.loads((ROOT / "config/grafana/dashboards/operators.json").read_text())
    (choice,) = board["templating"]["list"]
    assert (choice["type"], choice["query"]) == ("datasource", source["type"]), "the one there is"
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": "prometheus", "uid": f"${{{choice['name']}}}"}


def test_the_image_is_made_of_files_that_there_are_and_runs_as_nobody_in_particular() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    words = [shlex.split(line) for line in lines]
    (user,) = [word[1] for word in words if word[0] == "USER"]
    assert user == SERVICES["migrate"]["user"]
    assert f"--uid {user.split(':')[0]} " in text
    assert SERVICES["proxy"]["user"].split(":")[1] == user.split(":")[1], "it may read the key"
    for script in re.findall(r"bash (\S+\.sh)", text):
        assert (ROOT / script).exists()
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines()
               if line.startswith("!")]  # fmt: skip
    needed = ("pyproject.toml", "constraints.txt", "hatch_build.py", "README.md", "src", "sql",
              "config", "docs", "assets")  # fmt: skip
    assert sorted(allowed) == sorted(needed)
    assert all((ROOT / name).exists() for name in needed)
    for folder in ("broker", "ingest", "backup"):
        assert f"/var/lib/paqett/{folder}" in text, "a new volume takes its owner from here"
