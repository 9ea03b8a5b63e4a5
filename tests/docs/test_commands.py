"""Every command in README.md and docs/ is run, on one stack as `paqett up` starts it.

A page is a session: its commands run in turn in one shell, in a folder where `.paqett` is, after
the variables of docs/README.md have been set. curl fails where the answer is a refusal.
"""

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from blocks import PAGES, ROOT, Block, blocks, commands, without_blocks, words
from forked import command
from paqett import cli, webhooks
from stacks import Stack, running_stack, until

SHELL = ("sh", "console")
# no other word for a shell, so that no command is overlooked
LANGUAGES = {*SHELL, "python", "sql", "toml", "json", "text", "cpp", "yaml", "ini", "nginx"}
_PRELUDE = """
set -euo pipefail
curl() { command curl --fail-with-body --silent --show-error "$@"; }
"""


class Unrun(msgspec.Struct, frozen=True):
    """Commands that no test can run: which, why, and what is looked at instead."""

    pattern: str
    why: str
    check: Callable[[str], None]


def is_a_target(text: str) -> None:
    name = words(text)[1]
    assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE), text


def parses(text: str) -> None:
    cli.parser().parse_args(words(text)[1:])


def is_composed(text: str) -> None:
    """The services it names are there, and they can do what they are asked."""
    match words(text):
        case ["docker", "compose", _, *rest]:
            services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
            named = [word for word in rest if word in services]
            assert named or all(word.startswith("-") for word in rest), text
            may_be_asked(rest)
        case _:
            may_be_asked([])


def looks_right(text: str) -> None:
    """It is shell; the files and units of ours that it names exist, and so does the command."""
    subprocess.run(["bash", "-n", "-c", text], check=True)
    found = words(text)
    units = {path.name for path in (ROOT / "config" / "systemd").iterdir()}
    for word in found:
        if word.startswith(("src/", "config/")):
            assert (ROOT / word).exists(), text
        if found[0] == "systemctl" and re.fullmatch(r"paqett[\w.-]*", word):
            assert {word, f"{word}.service"} & units, text
    may_be_asked(found)


def may_be_asked(found: list[str]) -> None:
    names = [Path(word).name for word in found]
    if names[:1] == ["paqett-as"]:
        assert names[1] in ("api", "ingest", "worker", "broker", "migrate", "all"), found
        cli.parser().parse_args(found[2:])
    elif "paqett" in names and names[0] not in ("install", "runuser"):
        cli.parser().parse_args(found[names.index("paqett") + 1 :])


UNRUN = [
    Unrun(r"make ", "installs packages as root, or starts what runs already", is_a_target),
    Unrun(r"paqett (up|torture)\b", "tests/stack runs them", parses),
    Unrun(r"paqett admin (restore|retry-job)\b", "tests/test_backups.py, tests/mail do", parses),
    Unrun(r"docker ", "no engine, and no image without the internet", is_composed),
    Unrun(
        r"(bash src\S+|install|systemctl|runuser|pg_createcluster|/opt/paqett/bin/paqett-as) ",
        "changes the whole machine, as root; tests/deployment holds the files", looks_right,
    ),
    Unrun(r"pg_basebackup ", "tests/test_replica.py makes one", looks_right),
    Unrun(r"pip |\S+ .*opentelemetry-instrument ", "packages that are no part of it", looks_right),
]  # fmt: skip
# nothing else is run, so that no page can do this machine any harm
RUN = re.compile(
    r"(paqett|curl|mosquitto_pub|openssl req|python3|export|echo|ls|for|umask|\{|\w+\(\))(?![\w/])"
    r"|(now|version)="
)
HARM = {"rm", "sudo", "dd", "chown", "apt", "apt-get", "kill"}


def unrun(text: str) -> Unrun | None:
    return next((one for one in UNRUN if re.match(one.pattern, text)), None)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as stack:
        (stack.folder / "up.log").unlink()  # the test's own
        yield stack


@pytest.fixture(scope="module")
def folder(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where somebody works who has started the stack there."""
    place = tmp_path_factory.mktemp("clone")
    (place / ".paqett").symlink_to(stack.folder)
    return place


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """PATH with `paqett` and the environment's python in front."""
    with command(tmp_path_factory.mktemp("command")) as made:
        yield os.pathsep.join([str(made), str(Path(sys.executable).parent), os.environ["PATH"]])


def session(page: str) -> str:
    """What is typed, in the order of the page."""
    (variables,) = (one for one in blocks("sh") if one.page == "docs/README.md")
    typed = [_PRELUDE, variables.text]
    for block in blocks(*SHELL, "python"):
        if block.page == page:
            typed.append(f"echo 'in {block.where}' >&2")
            typed += _typed(block)
    return "\n".join(typed)


def _typed(block: Block) -> Iterator[str]:
    if block.language == "python":
        yield f"python - <<'END'\n{block.text}END"
        return
    for text in commands(block):
        if words(text) and unrun(text) is None:
            harmless = RUN.match(text) and not HARM & set(words(text))
            assert harmless, f"{block.where}: neither to be run nor known: {text}"
            yield text


def with_blocks(*languages: str) -> list[str]:
    return sorted({one.page for one in blocks(*languages)})


@pytest.mark.parametrize("page", with_blocks(*SHELL, "python"))
def test_the_commands_of_a_page_work(stack: Stack, folder: Path, path: str, page: str) -> None:
    environ = {name: value for name, value in os.environ.items() if "PAQETT" not in name}
    done = subprocess.run(
        ["bash", "-c", session(page)],
        cwd=folder, env={**environ, "PATH": path}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    if page in LEAVES:
        until(lambda: LEAVES[page](stack, folder), f"{page} leaves what it promises", 20)


def points(stack: Stack, device: str) -> dict[str, int]:
    """How many readings the device has of each metric."""
    items = stack.get(f"/api/v1/devices/{device}/telemetry?limit=10000").json()["items"]
    metrics = [item["metric"] for item in items]
    return {metric: metrics.count(metric) for metric in metrics}


def kitchen_is_read_by_grafana(stack: Stack, folder: Path) -> bool:
    device = json.loads((folder / "kitchen.json").read_bytes())["id"]
    source = yaml.safe_load(next(folder.glob("provisioning/datasources/*inf*")).read_bytes())
    key = json.loads((folder / "key.json").read_bytes())["key"]
    assert source["datasources"][0]["url"] == stack.state.api_url
    assert stack.get("/api/v1/latest", key).status_code == 200
    assert stack.get("/api/v1/usage/rejections").json()["items"] == []
    assert sorted(folder.glob("dashboards/*.json"))
    return points(stack, device) == {"temperature": 121}


LEAVES: dict[str, Callable[[Stack, Path], bool]] = {
    "docs/ingest.md": lambda stack, _: {"temperature", "door"} <= {
        *points(stack, stack.state.spare_device_id)
    },
    "docs/queries.md": lambda _, folder: (folder / "readings.csv").read_text().startswith("time,"),
    "docs/backup.md": lambda stack, _: any((stack.folder / "backup").glob("*.dump")),
    "docs/tutorial.md": kitchen_is_read_by_grafana,
}  # fmt: skip


@pytest.mark.parametrize("block", blocks(*SHELL), ids=lambda block: block.where)
def test_what_is_not_run_is_right_as_far_as_can_be_seen(block: Block) -> None:
    for text in commands(block):
        if found := unrun(text):
            found.check(text)


def test_most_commands_are_run_and_each_reason_has_one_that_is_not() -> None:
    every = [text for block in blocks(*SHELL) for text in commands(block) if words(text)]
    left = [text for text in every if unrun(text)]
    assert len(left) < len(every) / 2
    assert len(every) > 60
    assert [one.pattern for one in UNRUN if not any(unrun(text) is one for text in left)] == []


def test_every_block_says_what_it_is_and_no_command_hides_elsewhere() -> None:
    assert {one.language for one in blocks()} <= LANGUAGES
    hidden = re.compile(r"^    (?:\$ )?(paqett|curl|mosquitto_\w+|make|docker|psql|apt\S*|sudo) .*")
    for page in PAGES:
        if page.name != "cli.md":  # usage lines, of the parser itself
            lines = without_blocks(page).splitlines()
            assert [line for line in lines if hidden.match(line)] == [], page


def test_the_check_of_a_webhooks_signature_is_right() -> None:
    (block,) = (one for one in blocks("python") if one.page == "docs/alerts.md")
    names: dict[str, Callable[[str, bytes, str], bool]] = {}
    exec(block.text, names)
    now, body = int(time.time()), b'{"id": "1"}'
    header = webhooks.sign(["secret"], now, body)
    assert names["is_ours"](header, body, "secret")
    assert not names["is_ours"](header, body + b" ", "secret")
    assert not names["is_ours"](webhooks.sign(["secret"], now - 900, body), body, "secret")


def test_links_between_pages_lead_to_a_file_and_a_heading() -> None:
    from paqett.web.pages.docs import anchor

    for page in PAGES:
        for target, place in re.findall(
            r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)", page.read_text()
        ):
            file = (page.parent / target) if target else page
            assert file.exists(), f"{page.name} names {target}"
            if place:
                headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                assert place[1:] in map(anchor, headings), f"{page.name} names {target}{place}"


def test_configurations_are_what_they_say_and_name_the_topic_of_a_device() -> None:
    found = blocks("yaml", "toml", "json")
    readers = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}
    for block in found:
        assert readers[block.language](block.text), block.where
    connect = [block for block in found if block.page == "docs/connect.md"]
    assert len(connect) >= 4
    assert all("paqett/v1/DEVICE/telemetry" in block.text for block in connect)


def test_the_picture_of_the_front_page_is_light() -> None:
    assert (ROOT / "docs" / "paqett.png").stat().st_size < 150_000


def test_every_page_is_named_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [page.name for page in PAGES if page.parent.name == "docs" and page.stem != "README"]
    assert [name for name in pages if f"]({name}" not in index] == []
