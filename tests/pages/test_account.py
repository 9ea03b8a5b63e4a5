"""The pages of somebody's account: for them, not for others, and nobody who is signed out."""

import pytest

from site_of_tests import Eyes, Member, Site

PAGES = (
    "/settings", "/settings/keys", "/settings/grafana", "/settings/plan", "/alerts",
    "/alerts/rules/new", "/alerts/rules/new?kind=no_data", "/alerts/rules/new?kind=offline",
    "/alerts/channels", "/notices",
)  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_every_page_of_an_empty_account_stands_up_to_a_look(
    eyes: Eyes, owner: Member, path: str
) -> None:
    eyes.check(path, owner, name="empty-" + path.strip("/").replace("/", "-"))


@pytest.mark.parametrize("path", PAGES)
def test_whoever_is_signed_out_is_sent_to_sign_in_and_back(site: Site, path: str) -> None:
    answer = site.get(path)
    assert answer.status_code == 303
    target = answer.headers["location"]
    assert target.startswith("/sign-in?next=/")
