-- name: fleet_accounts
-- The simulated fleet's own accounts, made once; each row is an account_id.
INSERT INTO account (email, plan, tier)
SELECT format('sim-%%s-%%s@paqett.invalid', %(name)s::text, n), %(plan)s, %(tier)s
FROM generate_series(1, %(accounts)s::int) AS n
ON CONFLICT DO NOTHING;

-- name: fleet_account_ids
-- The fleet's accounts by their reserved addresses.
SELECT id AS account_id FROM account
WHERE email LIKE format('sim-%%s-%%%%@paqett.invalid', %(name)s::text) ORDER BY id;

-- name: fleet_devices
-- Many devices at once; those there already get the new secret.
INSERT INTO device (id, account_id, thing_name, verifier)
SELECT * FROM unnest(%(ids)s::text[], %(accounts)s::int[], %(names)s::text[], %(verifiers)s::text[])
ON CONFLICT (account_id, thing_name) DO UPDATE SET verifier = EXCLUDED.verifier
RETURNING id, account_id, thing_name;

-- name: fleet_series
-- What of the fleet's readings is to be erased.
SELECT id FROM series WHERE account_id = %(account)s;

-- name: fleet_remove
-- One account of the fleet with everything that hangs on it.
DELETE FROM account WHERE id = %(account_id)s;
