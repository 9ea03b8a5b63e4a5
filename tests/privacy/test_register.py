"""Nothing is kept of anybody that the register of personal data does not name."""

import importlib
from collections.abc import Callable

import msgspec
import psycopg
import pytest

from paqett import register
from paqett.db import Connection
from paqett.errors import ConfigurationError
from paqett.register import Catalog, Register
from paqett.settings import config_dir, load
from support import in_database

REGISTER = register.load()


def catalog_of(url: str) -> Catalog:
    async def look(conn: Connection) -> Catalog:
        return await register.catalog(conn, REGISTER)

    return in_database(url, look)  # type: ignore[no-any-return]


def test_a_migrated_database_has_what_the_register_says_and_nothing_else(database_url) -> None:
    found = catalog_of(database_url)
    assert register.differences(REGISTER, found) == []
    assert set(found.tiers) == {"free", "own", "paid"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("CREATE TABLE diary (account_id int)", "the table diary is not in the register"),
        ("ALTER TABLE account ADD phone text", "the column account.phone is not in the register"),
        ("ALTER TABLE tier ADD owner text", "the column tier.owner is not in the register"),
        ("CREATE VIEW crowd AS SELECT email FROM account", "the view crowd is not in the register"),
        ("CREATE SCHEMA more CREATE TABLE t (x int)", "the table more.t is not in the register"),
        ("DROP TABLE mail_day", "the table mail_day of the register does not exist"),
        ("ALTER TABLE device DROP attributes CASCADE",
         "the column device.attributes of the register does not exist"),
        ("ALTER TABLE session DROP CONSTRAINT session_account_id_fkey",
         "the table session does not go with the account's row, as the register says"),
        ("ALTER TABLE directory_change ADD FOREIGN KEY (account_id) REFERENCES account"
         " ON DELETE CASCADE",
         "the table directory_change goes with the account's row; the register says otherwise"),
        ("SELECT create_tier('gold', interval '2 years')", None),
    ],
)  # fmt: skip
def test_a_change_of_the_schema_is_noticed(database_url, change: str, said: str | None) -> None:
    with psycopg.connect(database_url) as conn:
        conn.execute(change)
    differences = register.differences(REGISTER, catalog_of(database_url))
    assert differences == ([] if said is None else [said])


def test_what_makes_a_store_is_there() -> None:
    for store in REGISTER.stores.values():
        module, _, names = store.made_by.partition(":")
        made_by: object = importlib.import_module(module)
        for name in names.split("."):
            made_by = getattr(made_by, name)
        assert made_by is not None


def test_periods_that_are_settings_exist() -> None:
    settings = msgspec.to_builtins(load({}))
    named = [entry.kept for entry in REGISTER.entries if entry.kept.startswith("setting ")]
    assert named
    for kept in named:
        section, _, key = kept.removeprefix("setting ").partition(".")
        assert settings[section][key] > 0


def edited(edit: Callable[[str], str]) -> Register:
    return register.parse(edit((config_dir() / "personal-data.toml").read_text()))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kept = "notices"', 'kept = "eternity"', "notice: there is no period eternity"),
        ('export = "notices"', "", "notice: say either the file"),
        ("rejections = 7 ", "rejections = 7\nunused = 9 ", "nothing is kept for the period unused"),
        ('ip = "security"', 'ipv9 = "security"', "session: ipv9 is none of its columns"),
    ],
)
def test_a_register_that_contradicts_itself_is_refused(old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        edited(lambda text: text.replace(old, new, 1))
    with pytest.raises(msgspec.ValidationError):
        edited(lambda text: text.replace('erased = "itself"', 'erased = "perhaps"', 1))


def test_files_are_known_by_their_place() -> None:
    known = [
        "mail/a.eml",
        "log/api.log",
        "ingest/spool/1/segment",
        "postgres/data/base/1",
        "up.json",
    ]
    assert register.unlisted(REGISTER, [*known, "log/deep/x.log", "notes.txt", "mail"]) == [
        "log/deep/x.log", "mail", "notes.txt",
    ]  # fmt: skip


def test_secrets_are_withheld_from_the_export() -> None:
    secret = {"hash", "password_hash", "verifier", "secret", "old_secret", "unsubscribe_secret"}
    for table in REGISTER.tables.values():
        if table.export is not None:
            assert secret & table.columns.keys() <= table.withheld.keys()


def test_everything_is_told_in_words() -> None:
    for entry in REGISTER.entries:
        assert register.kept_words(REGISTER, entry)
        assert register.ERASED_WORDS[entry.erased]
    sessions = REGISTER.tables["session"]
    assert register.kept_words(REGISTER, sessions) == "30 days"
    notices = REGISTER.tables["notice"]
    assert register.kept_words(REGISTER, notices) == (
        "90 days, and no longer than your plan keeps readings"
    )
