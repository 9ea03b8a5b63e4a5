"""Taking everything along and going, on the pages."""

import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from paqett import app, jobs
from paqett.worker import process
from people import PASSWORD
from site_of_tests import Eyes, Member, Site


@pytest.fixture(scope="module")
def site(site_url: str, api_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With a data folder, where archives lie."""
    folder = tmp_path_factory.mktemp("data")
    with Site(site_url, api_url, PAQETT_PAQETT__DATA_DIR=str(folder)).running() as running:
        yield running


def work(site: Site) -> None:
    """What the worker has to do."""

    async def run() -> None:
        async with app.services(site.settings_of_owner, "test", site.now) as services:
            queue = jobs.app(services.settings.database)
            async with queue.open_async():
                process.register(queue, services)
                await process.work(queue, services, wait=False)

    site.apart(run)


def test_pages_of_leaving_stand_up_to_a_look(eyes: Eyes, site: Site) -> None:
    kit = site.member("kit", password=PASSWORD)
    for path in ("/settings/export", "/settings/delete"):
        eyes.check(path, kit)
        assert site.get(path).status_code == 303
    settings = site.get("/settings", kit).text
    assert "Export All My Data" in settings
    assert "Delete Account" in settings


def test_an_archive_is_made_watched_and_fetched(eyes: Eyes, site: Site, stranger: Member) -> None:
    ada = site.member("ada", password=PASSWORD)
    with eyes.open("/settings/export", ada) as page:
        page.select_option("#format", "csv")
        page.click("main button:has-text('Export All My Data')")
        page.wait_for_selector("text=Your archive is being made.")
        eyes.barriers(page)
        work(site)
        page.wait_for_selector("a:has-text('Download')")  # by itself: the list is asked for again
        with page.expect_download() as download:
            page.click("a:has-text('Download')")
        name = download.value.suggested_filename
        saved = Path(str(download.value.path())).read_bytes()
    assert re.fullmatch(r"paqett-export-\d{4}-\d\d-\d\d\.zip", name)
    assert "account.csv" in " ".join(zipfile.ZipFile(BytesIO(saved)).namelist())
    (number,) = site.rows("SELECT max(id) FROM export WHERE account_id = %s", ada.id)[0]
    assert site.get(f"/settings/export/{number}/download", stranger).status_code == 404


def test_downloads_ask_for_a_proof_first(site: Site) -> None:
    ben = site.member("ben", password=PASSWORD)
    assert site.post("/settings/export", ben, format="ndjson").status_code == 303
    again = site.post("/settings/export", ben, format="ndjson")
    assert again.status_code == 409
    assert "wait until it is finished" in again.text
    work(site)
    site.rows(
        "UPDATE session SET authenticated_at = now() - interval '1 hour' WHERE account_id = %s",
        ben.id,
    )
    shown = site.get("/settings/export", ben).text
    assert "/download" not in shown
    assert "Show the downloads" in shown
    wrong = site.post("/settings/export/proof", ben, current_password="no")
    assert "This is not your password." in wrong.text
    right = site.post("/settings/export/proof", ben, current_password=PASSWORD)
    now = Member(ben.id, ben.email, right.cookies["paqett_session"])
    (path,) = re.findall(
        r'href="(/settings/export/\d+/download)"', site.get("/settings/export", now).text
    )
    assert site.get(path, now).headers["content-type"] == "application/zip"


def test_deleting_is_asked_for_twice_undone_and_done(eyes: Eyes, site: Site) -> None:
    cleo = site.member("cleo", password=PASSWORD)
    mistyped = site.post("/settings/delete", cleo, when="now", email="other@example.org")
    assert mistyped.status_code == 422
    assert "Type the address of this account" in mistyped.text
    with eyes.open("/settings/delete", cleo) as page:
        page.fill("#email", cleo.email.upper())
        page.click("button:has-text('Delete Account')")
        page.wait_for_selector("text=Your account is closed")
        eyes.barriers(page)
        eyes.shoot(page, "deleting")
        receipt = page.get_attribute("a:has-text('receipt of this deletion')", "href")
    assert site.get("/settings", cleo).status_code == 303  # every session has ended
    assert "An account will be erased" in site.get(str(receipt)).text
    signed_in = site.post("/sign-in", email=cleo.email, password=PASSWORD)
    back = Member(cleo.id, cleo.email, signed_in.cookies["paqett_session"])
    assert "This account is being deleted" in site.get("/settings", back).text
    refused = site.get("/alerts", back)
    assert refused.status_code == 403
    assert 'href="/settings"' in refused.text
    assert site.post("/settings/undo-deletion", back).headers["location"].startswith("/settings?")
    assert site.get("/alerts", back).status_code == 200
    gone = site.post("/settings/delete", back, when="now", email=cleo.email)
    (path,) = re.findall(r'href="(/deletion/receipt\?token=[^"]+)"', gone.text)
    work(site)
    with eyes.open(path) as page:
        assert page.is_visible("text=An account was erased")
        eyes.barriers(page)
        eyes.shoot(page, "receipt")
    assert site.rows("SELECT id FROM account WHERE id = %s", cleo.id) == []


def test_the_link_of_the_mail_undoes_a_deletion_once(eyes: Eyes, site: Site) -> None:
    dan = site.member("dan", password=PASSWORD)
    assert site.post("/settings/delete", dan, when="in 7 days", email=dan.email).status_code == 200

    async def issue(conn: Any) -> str:
        from paqett import tokens

        return await tokens.issue(conn, dan.id, "undo_deletion", dan.email, site.now(), 600)

    token = site.do(issue)
    with eyes.open(f"/deletion/undo?token={token}") as page:
        eyes.barriers(page)
        page.click("main button")
        page.wait_for_selector("text=The account is open again")
        eyes.shoot(page, "undone")
    again = site.post("/deletion/undo", token=token)
    assert again.status_code == 422
    assert "not valid, was used or has expired" in again.text
    assert site.get("/deletion/receipt?token=nothing").status_code == 404
