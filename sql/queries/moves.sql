-- name: lock_account
-- One change of plan at a time for an account.
SELECT id, email, plan, tier, moving_from, readable_from, tier_due_at, erasing
FROM account WHERE id = %(account)s FOR UPDATE;

-- name: unscoped_tiers
-- The tiers and their retention belong to nobody.
SELECT name, retention, retention_by FROM tier ORDER BY name;

-- name: set_plan
-- The plan's limits hold at once; the tier follows by set_tier.
UPDATE account SET plan = %(plan)s, tier_due_at = %(due)s WHERE id = %(account)s;

-- name: set_tier
-- New readings go to the new tier from here on; what has expired stays expired.
UPDATE account
SET tier = %(tier)s, moving_from = %(from)s, tier_due_at = NULL,
    readable_from = greatest(readable_from, %(readable_from)s)
WHERE id = %(account)s;

-- name: unscoped_due_tier_changes
-- The worker's round: accounts of anyone whose readings must follow their plan now.
SELECT id FROM account WHERE tier_due_at <= %(now)s ORDER BY tier_due_at;

-- name: unscoped_open_moves
-- The worker's round: moves of any account that a crash may have left open.
SELECT id FROM account WHERE moving_from IS NOT NULL ORDER BY id;

-- name: lock_move
-- The mover's turn: no flush of this account is between its look and its commit.
SELECT pg_advisory_xact_lock(7062, %(account)s);

-- name: oldest_moving_number
-- Where the next slice of a move begins.
SELECT min(time) AS time FROM {tier} WHERE account_id = %(account)s;

-- name: oldest_moving_text
-- The same for text values.
SELECT min(time) AS time FROM {tier_text} WHERE account_id = %(account)s;

-- name: take_numbers
-- One slice out of the tier it leaves; kept until the slice is written.
WITH taken AS (
    DELETE FROM {tier} WHERE account_id = %(account)s AND time >= %(from)s AND time < %(to)s
    RETURNING time, account_id, series_id, value
)
INSERT INTO moving_number SELECT * FROM taken WHERE time >= %(oldest)s;

-- name: take_texts
-- The same for text values.
WITH taken AS (
    DELETE FROM {tier_text} WHERE account_id = %(account)s AND time >= %(from)s AND time < %(to)s
    RETURNING time, account_id, series_id, value
)
INSERT INTO moving_text SELECT * FROM taken WHERE time >= %(oldest)s;

-- name: put_numbers
-- The slice into the tier it joins; a reading of the account that is there already stays.
INSERT INTO {tier} (time, account_id, series_id, value)
SELECT time, account_id, series_id, value FROM moving_number ON CONFLICT (series_id, time) DO NOTHING;

-- name: put_texts
-- The same for text values of the account.
INSERT INTO {tier_text} (time, account_id, series_id, value)
SELECT time, account_id, series_id, value FROM moving_text ON CONFLICT (series_id, time) DO NOTHING;

-- name: unscoped_moving_tables
-- Hold one account's slice between the two tiers, within one transaction.
CREATE TEMPORARY TABLE moving_number (time timestamptz, account_id int, series_id int, value float8)
ON COMMIT DROP;

-- name: unscoped_moving_text_table
-- The same for text values.
CREATE TEMPORARY TABLE moving_text (time timestamptz, account_id int, series_id int, value text)
ON COMMIT DROP;

-- name: close_move
-- The account's readings all stand in its tier again.
UPDATE account SET moving_from = NULL WHERE id = %(account)s;
