"""Bills go where the account's mail goes."""

from people import mailed
from shop import Shop


def at_stripe(shop: Shop) -> list[str]:
    return [one["email"] for one in shop.fake.customers.values()]


def test_a_changed_address_reaches_stripe_within_minutes(shop: Shop) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        await shop.buy(ada)
        await shop.deliver_all()
        answer = await ada.ask("POST", "/account/email", json={"email": "new@example.org"})
        assert answer.status_code == 202, answer.text
        token = await mailed(
            shop.services.settings, "ada@example.org", "change_email", to="new@example.org"
        )
        verified = await ada.ask("POST", "/auth/verify-email", json={"token": token})
        assert verified.status_code == 200, verified.text
        assert at_stripe(shop) == ["ada@example.org"]
        shop.later(minutes=6)
        await shop.reconcile()
        assert at_stripe(shop) == ["new@example.org"]
        assert (await shop.plan(ada))["name"] == "paid"
        asked = len(shop.fake.events)
        shop.later(minutes=6)
        await shop.reconcile()
        assert len(shop.fake.events) == asked  # told once

    shop.run(work)


def test_an_address_that_changes_while_stripe_is_told_is_told_again(
    shop: Shop, monkeypatch
) -> None:
    async def work(shop: Shop) -> None:
        account, _ = shop.subscriber("ada")
        shop.rows("UPDATE account SET email = 'second@example.org'")
        stripe = shop.services.stripe
        assert stripe is not None
        tell = stripe.update_customer

        async def slowly(customer: str, email: str) -> None:
            if email.startswith("second"):
                shop.rows("UPDATE account SET email = 'third@example.org'")
            await tell(customer, email)

        monkeypatch.setattr(stripe, "update_customer", slowly)
        await shop.sync(account)
        assert at_stripe(shop) == ["second@example.org"]
        await shop.sync(account)
        assert at_stripe(shop) == ["third@example.org"]
        assert shop.rows("SELECT stale_since FROM subscription") == [(None,)]

    shop.run(work)


def test_an_address_changed_during_the_first_checkout_is_not_forgotten(
    shop: Shop, monkeypatch
) -> None:
    async def work(shop: Shop) -> None:
        ada = await shop.person()
        stripe = shop.services.stripe
        assert stripe is not None
        create = stripe.create_customer

        async def slowly(account_id: int, email: str, key: str) -> str:
            made = await create(account_id, email, key)
            shop.rows("UPDATE account SET email = 'second@example.org'")
            return made

        monkeypatch.setattr(stripe, "create_customer", slowly)
        await shop.buy(ada)
        await shop.deliver_all()
        assert at_stripe(shop) == ["second@example.org"]

    shop.run(work)
