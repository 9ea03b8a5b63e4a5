-- name: create_key
-- A key of the account; the key itself is stored nowhere.
INSERT INTO api_key (account_id, name, hint, hash, scopes, device_ids, expires_at)
VALUES (%(account)s, %(name)s, %(hint)s, %(hash)s, %(scopes)s, %(devices)s, %(expires)s)
RETURNING id, name, hint, scopes, device_ids, created_at, expires_at, last_used_at, last_used_ip;

-- name: count_named_devices
-- How many of the named devices are the account's.
SELECT count(*) AS devices FROM device WHERE account_id = %(account)s AND id = ANY (%(devices)s);

-- name: count_keys
-- How many keys the account has.
SELECT count(*) AS keys FROM api_key WHERE account_id = %(account)s;

-- name: list_keys
-- The account's keys, newest first, without what would let anybody in.
SELECT id, name, hint, scopes, device_ids, created_at, expires_at, last_used_at, last_used_ip
FROM api_key WHERE account_id = %(account)s ORDER BY created_at DESC, id DESC;

-- name: delete_key
-- One of the account's keys.
DELETE FROM api_key WHERE account_id = %(account)s AND id = %(key)s RETURNING name;

-- name: unscoped_find_key
-- The key tells which account it is: before this nothing is known but its hash.
SELECT api_key.id AS key_id, api_key.scopes, api_key.device_ids, api_key.expires_at,
       api_key.last_used_at, account.id, account.email, account.plan, account.tier,
       account.moving_from, account.readable_from, tier.retention, account.disabled_at,
       account.closing_at
FROM api_key JOIN account ON account.id = api_key.account_id JOIN tier ON tier.name = account.tier
WHERE api_key.hash = %(hash)s;

-- name: note_key_use
-- At most once a minute, so that reads stay reads.
UPDATE api_key SET last_used_at = %(now)s, last_used_ip = %(ip)s
WHERE account_id = %(account)s AND id = %(key)s;

-- name: unscoped_find_device
-- A device that signs in tells which account it is by its secret.
SELECT device.verifier, device.secret_used_at, account.id, account.email, account.plan,
       account.tier, account.moving_from, account.readable_from, tier.retention,
       account.disabled_at, account.closing_at
FROM device JOIN account ON account.id = device.account_id JOIN tier ON tier.name = account.tier
WHERE device.id = %(device)s;

-- name: note_secret_use
-- At most once a minute, as for the account's keys.
UPDATE device SET secret_used_at = %(now)s, secret_used_ip = %(ip)s
WHERE account_id = %(account)s AND id = %(device)s;
