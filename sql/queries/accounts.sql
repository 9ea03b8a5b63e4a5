-- name: create_account
-- A new account; its number is its account_id everywhere.
INSERT INTO account (email, plan, tier) VALUES (%(email)s, %(plan)s, %(tier)s)
ON CONFLICT DO NOTHING
RETURNING id, email, plan, tier, moving_from, readable_from;

-- name: find_account
-- One account by its number or its address, for the operator's command line.
SELECT id, email, plan, tier, moving_from, readable_from FROM account
WHERE id::text = %(account)s OR lower(email) = lower(%(account)s);

-- name: unscoped_accounts
-- The operator's list: counts and plans, never readings.
SELECT account.id, account.email, account.plan, account.tier, account.moving_from,
       account.readable_from, count(device.id) AS devices
FROM account LEFT JOIN device ON device.account_id = account.id
GROUP BY account.id ORDER BY account.id;
