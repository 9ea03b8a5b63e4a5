"""The operator's pages."""

import json
import re

from site_of_tests import Eyes, Member, Site


def operator(site: Site, name: str) -> Member:
    made = site.member(name)
    site.rows("UPDATE account SET operator = true WHERE id = %s", made.id)
    return made


def test_an_operator_sees_counts_and_the_look_is_recorded(
    eyes: Eyes, site: Site, owner: Member
) -> None:
    root = operator(site, "root")
    eyes.check("/admin", root)
    eyes.check(f"/admin/accounts/{owner.id}", root, name="admin-account")
    told = site.rows("SELECT data FROM notice WHERE account_id = %s", owner.id)
    assert told[0][0] == {
        "what": "the page of counts of this account", "by": f"operator {root.id} on the pages",
    }  # fmt: skip


def test_for_everybody_else_there_is_no_such_page(site: Site, owner: Member) -> None:
    for path in ("/admin", f"/admin/accounts/{owner.id}"):
        assert site.get(path, owner).status_code == 404
        assert site.get(path).status_code == 303
    assert "/admin" not in site.get("/settings", owner).text


def test_an_operator_of_no_account_is_told_so(site: Site) -> None:
    assert site.get("/admin/accounts/2147483647", operator(site, "root2")).status_code == 404


def test_the_list_of_accounts_is_searched_and_paged(site: Site) -> None:
    root = operator(site, "root3")
    site.rows(
        "INSERT INTO account (email, plan, tier) SELECT 'many' || n || '@example.org', 'own', 'own'"
        " FROM generate_series(1, 120) AS n"
    )
    first = site.get("/admin?q=MANY", root).text
    assert "many120@example.org" in first
    assert "many20@example.org" not in first
    (link,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = site.get(link.replace("&amp;", "&"), root).text
    assert "many20@example.org" in second
    assert "many120@example.org" not in second
    assert "No account has an address like this." in site.get("/admin?q=nobody-here", root).text


def test_the_last_privacy_check_is_shown(site: Site) -> None:
    root = operator(site, "root4")
    assert "The worker has not checked yet." in site.get("/admin", root).text
    for passed in (True, False):
        finding = {"check": "orphans", "subject": "alert", "passed": passed, "detail": "3 rows"}
        report = {
            "at": "2026-11-25T10:00:00Z", "version": "1", "passed": passed, "looked_at": 1,
            "failed": int(not passed), "findings": [finding],
        }  # fmt: skip
        site.rows(
            "INSERT INTO privacy_check (at, passed, report) VALUES (now(), %s, %s)",
            passed, json.dumps(report),
        )  # fmt: skip
        shown = site.get("/admin", root).text
        assert ("of 1 failed" in shown, "3 rows" in shown) == (True, not passed)
