-- name: lock_billing
-- One at a time asks Stripe about an account and does what it says.
SELECT pg_advisory_xact_lock(7065, %(account)s);

-- name: subscription
-- What is known of the account at Stripe.
SELECT customer_key, customer_id, subscription_id, status, plan, period_end, ends_at, granted,
       checkout_key, checkout_at
FROM subscription WHERE account_id = %(account)s;

-- name: reserve_checkout
-- Whose row comes back may make the account's Checkout; another click gets none until that is done
-- or was given up.
INSERT INTO subscription (account_id, customer_key, checkout_key, checkout_at)
VALUES (%(account)s, %(customer_key)s, %(key)s, %(now)s)
ON CONFLICT (account_id) DO UPDATE SET checkout_key = %(key)s, checkout_at = %(now)s
WHERE subscription.checkout_key IS NULL OR subscription.checkout_at < %(lapsed)s
RETURNING customer_key, customer_id;

-- name: release_checkout
-- The account's Checkout is made or was refused; a reservation that lapsed meanwhile is another's.
UPDATE subscription SET checkout_key = NULL
WHERE account_id = %(account)s AND checkout_key = %(key)s;

-- name: keep_customer
-- The account's customer at Stripe, kept before anything is sold to it; its address may have changed
-- since Stripe was told.
UPDATE subscription SET customer_id = %(customer)s,
    stale_since = (SELECT %(now)s::timestamptz FROM account
                   WHERE id = %(account)s AND email <> %(email)s)
WHERE account_id = %(account)s;

-- name: forget_customer
-- The account's customer was deleted at Stripe: the next one needs another key.
UPDATE subscription SET customer_id = NULL, customer_key = %(customer_key)s
WHERE account_id = %(account)s AND customer_id = %(customer)s;

-- name: save_subscription
-- What Stripe just said of the account.
UPDATE subscription SET subscription_id = %(subscription_id)s, status = %(status)s,
    plan = %(plan)s, period_end = %(period_end)s, ends_at = %(ends_at)s, granted = %(granted)s,
    synced_at = %(now)s
WHERE account_id = %(account)s;

-- name: stale_customer
-- The account's address, where Stripe has not heard of it yet.
SELECT account.email, subscription.stale_since
FROM subscription JOIN account ON account.id = subscription.account_id
WHERE account.id = %(account)s AND subscription.stale_since IS NOT NULL;

-- name: note_customer_carried
-- Stripe has the account's address, unless it changed again meanwhile.
UPDATE subscription SET stale_since = NULL
WHERE account_id = %(account)s AND stale_since = %(since)s;

-- name: plan_of
-- The plan the account is on now, and until when its older readings are kept after a smaller one.
SELECT plan, tier_due_at FROM account WHERE id = %(account)s;

-- name: unscoped_note_event
-- Nothing comes back for an event that came before; it is of whichever customer it names.
INSERT INTO stripe_event (id, type, received_at) VALUES (%(id)s, %(type)s, %(now)s)
ON CONFLICT (id) DO NOTHING RETURNING id;

-- name: unscoped_account_of_customer
-- An event names a customer, and that tells the account.
SELECT account_id FROM subscription WHERE customer_id = %(customer)s;

-- name: unscoped_forget_events
-- Stripe sends an event again for 3 days at most, and its signature is too old within minutes.
DELETE FROM stripe_event WHERE received_at < %(before)s;

-- name: unscoped_claim_reconciliations
-- Whoever was not asked about for long, whoever may have just paid, whosesoever period has ended or
-- address has changed; claimed, so that two workers do not both ask.
UPDATE subscription SET synced_at = %(now)s
WHERE account_id IN (
    SELECT account_id FROM subscription
    WHERE customer_id IS NOT NULL AND (
        synced_at < %(day)s
        OR checkout_at > %(recent)s AND synced_at < %(soon)s
        OR ends_at <= %(now)s AND synced_at < %(soon)s
        OR stale_since IS NOT NULL AND synced_at < %(soon)s)
    ORDER BY synced_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING account_id;

-- name: ending_of
-- Whether the account is closing, and which subscription was set to end for that.
SELECT s.customer_id, s.ended_for_deletion AS ended, a.closing_at IS NOT NULL AS closing
FROM account AS a JOIN subscription AS s ON s.account_id = a.id WHERE a.id = %(account)s;

-- name: note_ending
-- The subscription of the account that ends because it is being deleted.
UPDATE subscription SET ended_for_deletion = %(subscription)s WHERE account_id = %(account)s;
