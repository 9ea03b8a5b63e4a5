-- name: unscoped_fleet_accounts
-- The simulated fleet's own accounts, made before they have a number; those there already stay.
INSERT INTO account (email, plan, tier)
SELECT format('sim-%%s-%%s@paqett.invalid', %(name)s::text, n), %(plan)s, %(tier)s
FROM generate_series(1, %(accounts)s::int) AS n
ON CONFLICT DO NOTHING;

-- name: unscoped_fleet_account_ids
-- A fleet is known by its reserved addresses alone; the name is compared, never a pattern.
SELECT id AS account_id FROM account
WHERE email ~ '^sim-.*-[0-9]+@paqett\.invalid$'
    AND regexp_replace(email, '^sim-(.*)-[0-9]+@paqett\.invalid$', '\1') = %(name)s
ORDER BY id;

-- name: unscoped_fleet_devices
-- Many devices of several accounts at once; those there already get the new secret.
INSERT INTO device (id, account_id, thing_name, verifier)
SELECT * FROM unnest(%(ids)s::text[], %(accounts)s::int[], %(names)s::text[], %(verifiers)s::text[])
ON CONFLICT (account_id, thing_name) DO UPDATE SET verifier = EXCLUDED.verifier
RETURNING id, account_id, thing_name;

-- name: fleet_series
-- What of the fleet's readings is to be erased.
SELECT id FROM series WHERE account_id = %(account_id)s;

-- name: fleet_remove
-- One account of the fleet with everything that hangs on it.
DELETE FROM account WHERE id = %(account_id)s;
