"""What anybody sees without an account."""

import pytest

from site_of_tests import Eyes, Member, Site

PAGES = (
    "/", "/sign-up", "/sign-up/sent", "/sign-in", "/verify-email?token=abc", "/reset-password",
    "/reset-password?token=abc", "/reset-password/sent",
)  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_every_public_page_stands_up_to_a_look(eyes: Eyes, path: str) -> None:
    eyes.check(path)


def test_what_is_not_there_is_a_page_for_browsers_and_a_problem_for_programs(site: Site) -> None:
    page = site.get("/nowhere")
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert "There is nothing here" in page.text
    problem = site.get("/nowhere", headers={"Accept": "*/*"})
    assert problem.headers["content-type"] == "application/problem+json"
    below = site.get("/api/v1/nowhere")
    assert below.headers["content-type"] == "application/problem+json"


def test_a_page_of_an_error_stands_up_to_a_look(eyes: Eyes, owner: Member) -> None:
    with eyes.open("/sign-in") as page:
        page.fill("#email", "nobody@example.org")
        page.fill("#password", "wrong")
        page.click("button:has-text('Sign in')")
        page.wait_for_selector(".told.bad")
        assert page.input_value("#email") == "nobody@example.org"
        assert page.input_value("#password") == ""
        eyes.barriers(page)
