-- name: create_account
-- A new account by an operator; its number is its account_id everywhere.
INSERT INTO account (email, plan, tier, email_verified_at, policy_told)
VALUES (%(email)s, %(plan)s, %(tier)s, now(), %(policy_told)s)
ON CONFLICT DO NOTHING
RETURNING id, email, plan, tier, moving_from, readable_from, disabled_at, closing_at,
          (SELECT retention FROM tier WHERE tier.name = account.tier);

-- name: find_account
-- One account by its number or its address, for the operator's command line.
SELECT id, email, plan, tier, moving_from, readable_from, retention, disabled_at, closing_at
FROM account JOIN tier ON tier.name = account.tier
WHERE id::text = %(account)s OR lower(email) = lower(%(account)s);

-- name: unscoped_accounts
-- The operator's list: counts and plans, never readings.
SELECT account.id, account.email, account.plan, account.tier, account.moving_from,
       account.readable_from, account.email_verified_at IS NOT NULL AS verified,
       account.disabled_at IS NOT NULL AS disabled, account.closing_at IS NOT NULL AS closing,
       account.operator, count(device.id) AS devices
FROM account LEFT JOIN device ON device.account_id = account.id
GROUP BY account.id ORDER BY account.id;

-- name: unscoped_account_page
-- A page of the operator's list, newest first; with `text` of addresses that contain it.
SELECT account.id, account.email, account.plan, account.tier,
       account.email_verified_at IS NOT NULL AS verified,
       account.disabled_at IS NOT NULL AS disabled, account.closing_at IS NOT NULL AS closing,
       account.operator,
       (SELECT count(*) FROM device WHERE device.account_id = account.id) AS devices
FROM account
WHERE (%(before)s::int IS NULL OR account.id < %(before)s)
  AND (%(text)s::text IS NULL OR position(lower(%(text)s) IN lower(account.email)) > 0)
ORDER BY account.id DESC LIMIT %(limit)s;

-- name: unscoped_account_counts
-- How many accounts and devices there are.
SELECT (SELECT count(*) FROM account) AS accounts, (SELECT count(*) FROM device) AS devices;

-- name: profile
-- What the account's person may see of it.
SELECT account.id, email, email_verified_at, first_name, surname, time_zone, plan,
       password_hash IS NOT NULL AS has_password, operator, created_at, age_confirmed_at,
       policy_version, policy_accepted_at, disabled_at, closing_at,
       (SELECT due_at FROM erasure WHERE account_id = account.id AND device_id IS NULL) AS erased_at,
       ARRAY(SELECT provider FROM identity WHERE account_id = account.id ORDER BY provider) AS providers
FROM account WHERE account.id = %(account)s;

-- name: update_profile
-- The account's own fields, all of them, so that null clears.
UPDATE account SET first_name = %(first_name)s, surname = %(surname)s, time_zone = %(time_zone)s
WHERE id = %(account)s;

-- name: find_sign_in
-- The account somebody says is theirs, by its address.
SELECT id, email, password_hash, email_verified_at, first_name, surname
FROM account WHERE lower(email) = lower(%(account)s);

-- name: sign_in_of
-- The account that is signed in already.
SELECT id, email, password_hash, email_verified_at, first_name, surname
FROM account WHERE id = %(account)s;

-- name: set_password
-- The account's new hash; tokens that would set another end with it.
WITH ended AS (
    DELETE FROM account_token WHERE account_id = %(account)s AND purpose = 'reset_password'
)
UPDATE account SET password_hash = %(hash)s WHERE id = %(account)s;

-- name: set_email
-- The account's new address, proved by a token mailed to it; what was mailed to the old one ends.
WITH ended AS (DELETE FROM account_token WHERE account_id = %(account)s)
UPDATE account SET email = %(email)s, email_verified_at = %(now)s, pending_email = NULL
WHERE id = %(account)s;

-- name: set_pending_email
-- The account's address to be.
UPDATE account SET pending_email = %(email)s WHERE id = %(account)s;

-- name: hold_open
-- The account, unless it is being deleted, which waits until whoever asks has committed.
SELECT id FROM account WHERE id = %(account)s AND closing_at IS NULL FOR KEY SHARE;

-- name: set_disabled
-- By an operator; the account's devices leave the broker's password file with it.
UPDATE account SET disabled_at = %(at)s WHERE id = %(account)s;

-- name: set_operator
-- By an operator on the command line; the account's person.
UPDATE account SET operator = %(operator)s WHERE id = %(account)s;

-- name: register
-- A registration nobody has confirmed is replaced by the next one of the account's address.
INSERT INTO account AS old (email, plan, tier, password_hash, first_name, surname, time_zone,
                            age_confirmed_at, policy_version, policy_accepted_at, policy_told, created_at)
VALUES (%(email)s, %(plan)s, %(tier)s, %(hash)s, %(first_name)s, %(surname)s, %(time_zone)s,
        %(now)s, %(policy_version)s, %(now)s, %(policy_version)s, %(now)s)
ON CONFLICT (lower(email)) DO UPDATE SET password_hash = EXCLUDED.password_hash,
    first_name = EXCLUDED.first_name, surname = EXCLUDED.surname, time_zone = EXCLUDED.time_zone,
    age_confirmed_at = EXCLUDED.age_confirmed_at, policy_version = EXCLUDED.policy_version,
    policy_accepted_at = EXCLUDED.policy_accepted_at, policy_told = EXCLUDED.policy_told,
    created_at = EXCLUDED.created_at
WHERE old.email_verified_at IS NULL
RETURNING id;

-- name: verify_email
-- Only while the account still has the address the token was mailed to.
UPDATE account SET email_verified_at = coalesce(email_verified_at, %(now)s)
WHERE id = %(account)s AND lower(email) = lower(%(email)s)
RETURNING id;
