-- name: lock_account
-- One change of plan at a time for an account.
SELECT id, email, plan, tier, moving_from, readable_from, tier_due_at, erasing
FROM account WHERE id = %(account)s FOR UPDATE;

-- name: unscoped_tiers
-- The tiers, their retention and their columnstore belong to nobody.
SELECT name, retention, retention_by, columnstore_after FROM tier ORDER BY name;

-- name: set_plan
-- The plan's limits hold at once; the tier follows by set_tier.
UPDATE account SET plan = %(plan)s, tier_due_at = %(due)s,
    tier_told_days = CASE WHEN tier_due_at IS NOT DISTINCT FROM %(due)s THEN tier_told_days END
WHERE id = %(account)s;

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

-- name: note_move
-- Where the account's move begins and ends, once: before the first reading that the tier may hold,
-- and after the last, since none is more than 10 minutes ahead of its receipt.
INSERT INTO move (account_id, begun_at, carried_to, until)
SELECT account.id, %(now)s::timestamptz,
       %(now)s::timestamptz - tier.retention - interval '2 days',
       %(now)s::timestamptz + interval '1 hour'
FROM account JOIN tier ON tier.name = account.moving_from
WHERE account.id = %(account)s
ON CONFLICT (account_id) DO NOTHING;

-- name: next_slice
-- Where the account's move stands. Both rows are held, so that a change of plan waits for the slice.
SELECT account.tier, account.moving_from, move.carried_to, move.until, move.span,
       greatest(account.readable_from, %(now)s::timestamptz - tier.retention) AS oldest,
       ARRAY(SELECT id FROM series WHERE series.account_id = account.id ORDER BY id) AS series
FROM account JOIN move ON move.account_id = account.id JOIN tier ON tier.name = account.tier
WHERE account.id = %(account)s AND account.moving_from IS NOT NULL
FOR NO KEY UPDATE OF account, move;

-- name: await_chunks
-- Whether the account's move has its chunks. A statement that was planned before they were there must
-- have begun before the first reading moves into one: nothing else tells it of them.
SELECT prepared_at IS NOT NULL AS prepared,
       pg_sleep(greatest(0, 0.3 - extract(epoch FROM clock_timestamp() - prepared_at)))
FROM move WHERE account_id = %(account)s;

-- name: unscoped_make_chunks
-- A chunk of nobody's yet for each that the tier left has and the other lacks: a row that is taken
-- back at once makes it.
INSERT INTO {other} (time, account_id, series_id, value)
SELECT greatest(source.range_start, %(oldest)s::timestamptz), 0, 0, 0
FROM timescaledb_information.chunks AS source
WHERE source.hypertable_name = %(source)s AND source.range_end > %(oldest)s
  AND NOT EXISTS (SELECT FROM timescaledb_information.chunks AS target
                  WHERE target.hypertable_name = %(target)s
                    AND target.range_start < source.range_end AND source.range_start < target.range_end);

-- name: unscoped_make_text_chunks
-- The same for text values of nobody's.
INSERT INTO {other_text} (time, account_id, series_id, value)
SELECT greatest(source.range_start, %(oldest)s::timestamptz), 0, 0, ''
FROM timescaledb_information.chunks AS source
WHERE source.hypertable_name = %(source)s || '_text' AND source.range_end > %(oldest)s
  AND NOT EXISTS (SELECT FROM timescaledb_information.chunks AS target
                  WHERE target.hypertable_name = %(target)s || '_text'
                    AND target.range_start < source.range_end AND source.range_start < target.range_end);

-- name: unscoped_take_back
-- The rows of nobody's that made chunks.
DELETE FROM {other} WHERE account_id = 0 AND series_id = 0 AND time >= %(oldest)s;

-- name: unscoped_take_back_texts
-- The same for text values of nobody's.
DELETE FROM {other_text} WHERE account_id = 0 AND series_id = 0 AND time >= %(oldest)s;

-- name: note_chunks
-- The account's move has its chunks.
UPDATE move SET prepared_at = clock_timestamp() WHERE account_id = %(account)s;

-- name: count_slice
-- How many readings of the account the slice would take, up to the most it may.
SELECT count(*) AS rows FROM (
    SELECT FROM unnest(%(series)s::int[]) AS s (id) CROSS JOIN LATERAL (
        SELECT FROM {tier} WHERE account_id = %(account)s AND series_id = s.id
          AND time >= %(from)s AND time < %(to)s LIMIT %(most)s) AS r
    UNION ALL
    SELECT FROM unnest(%(series)s::int[]) AS s (id) CROSS JOIN LATERAL (
        SELECT FROM {tier_text} WHERE account_id = %(account)s AND series_id = s.id
          AND time >= %(from)s AND time < %(to)s LIMIT %(most)s) AS r
    LIMIT %(most)s
) AS slice;

-- name: carry_numbers
-- One slice from the tier the account leaves into the one it joins; a reading that is there already
-- stays.
INSERT INTO {other} (time, account_id, series_id, value)
SELECT time, account_id, series_id, value FROM {tier}
WHERE account_id = %(account)s AND series_id = ANY (%(series)s)
  AND time >= %(from)s AND time < %(to)s
ON CONFLICT (series_id, time) DO NOTHING;

-- name: carry_texts
-- The same for text values.
INSERT INTO {other_text} (time, account_id, series_id, value)
SELECT time, account_id, series_id, value FROM {tier_text}
WHERE account_id = %(account)s AND series_id = ANY (%(series)s)
  AND time >= %(from)s AND time < %(to)s
ON CONFLICT (series_id, time) DO NOTHING;

-- name: note_slice
-- How far the account's move has come, in the slice's own transaction.
UPDATE move SET carried_to = %(carried_to)s, span = %(span)s WHERE account_id = %(account)s;

-- name: open_move
-- How far the account's move has come, and its series.
SELECT carried_to, until,
       ARRAY(SELECT id FROM series WHERE series.account_id = move.account_id) AS series
FROM move WHERE account_id = %(account)s;

-- name: prolong_move
-- The account has readings further ahead than any should be.
UPDATE move SET until = %(until)s WHERE account_id = %(account)s;

-- name: forget_move
-- The account's move is done.
DELETE FROM move WHERE account_id = %(account)s;

-- name: forget_due
-- The account's readings stand in its plan's tier already.
UPDATE account SET tier_due_at = NULL WHERE id = %(account)s;

-- name: unscoped_settle_retention
-- A tier's policy belongs to nobody: it rests while a move out of the tier needs it to.
SELECT settle_retention(%(tier)s) AS rests;

-- name: unscoped_report_long_moves
-- The worker's round: whosesoever move takes long, told to the operator once.
UPDATE move SET reported_at = %(now)s FROM account
WHERE account.id = move.account_id AND account.moving_from IS NOT NULL
  AND begun_at < %(since)s AND reported_at IS NULL
RETURNING move.account_id;

-- name: unscoped_move_state
-- How many accounts are being moved, whosesoever, and since when the oldest of them.
SELECT count(*) AS open, min(begun_at) AS begun_at
FROM move JOIN account ON account.id = move.account_id WHERE account.moving_from IS NOT NULL;

-- name: unscoped_remind_of_grace
-- The worker's round: whose grace is nearly over; each number of days is told once.
UPDATE account SET tier_told_days = %(days)s
WHERE tier_due_at > %(now)s::timestamptz AND tier_due_at <= %(before)s
  AND coalesce(tier_told_days > %(days)s, true)
RETURNING id, plan, tier_due_at;

-- name: close_move
-- The account's readings all stand in its tier again; what had expired is gone, so that what comes
-- late may be as old as the tier allows.
UPDATE account SET moving_from = NULL, readable_from = 'epoch' WHERE id = %(account)s;
