-- name: lock_channels
-- Two requests at once must not pass the limit of the account's channels together.
SELECT pg_advisory_xact_lock(7066, %(account)s);

-- name: count_channels
-- For the limit of the account's webhooks.
SELECT count(*) AS channels FROM channel WHERE account_id = %(account)s;

-- name: create_channel
-- A webhook of the account.
INSERT INTO channel (account_id, name, url, secret, created_at)
VALUES (%(account)s, %(name)s, %(url)s, %(secret)s, %(now)s)
RETURNING id;

-- name: list_channels
-- The account's webhooks, or one of them.
SELECT id, name, url, failures, paused_at, created_at FROM channel
WHERE account_id = %(account)s AND (%(channel)s::int IS NULL OR id = %(channel)s)
ORDER BY id;

-- name: delete_channel
-- The account's webhook with its deliveries.
DELETE FROM channel WHERE account_id = %(account)s AND id = %(channel)s RETURNING name;

-- name: rotate_channel_secret
-- A trigger keeps the one before, which signs beside it for a day; the account's.
UPDATE channel SET secret = %(secret)s WHERE account_id = %(account)s AND id = %(channel)s
RETURNING id;

-- name: latest_deliveries
-- The newest deliveries of some channels of the account, with every attempt.
SELECT d.* FROM unnest(%(channels)s::int[]) AS c (id)
CROSS JOIN LATERAL (
    SELECT id, channel_id, notice_id, event, state, attempts, created_at FROM delivery
    WHERE account_id = %(account)s AND channel_id = c.id
    ORDER BY created_at DESC, id LIMIT %(limit)s
) AS d;

-- name: create_deliveries
-- A notice of the account goes to each of its channels that is not paused.
INSERT INTO delivery (account_id, channel_id, notice_id, event)
SELECT account_id, id, %(notice)s, %(event)s FROM channel
WHERE account_id = %(account)s AND paused_at IS NULL ORDER BY id
RETURNING id, channel_id;

-- name: create_test_delivery
-- A test of one channel of the account, paused or not.
INSERT INTO delivery (account_id, channel_id, event)
SELECT account_id, id, 'test' FROM channel WHERE account_id = %(account)s AND id = %(channel)s
RETURNING id;

-- name: delivery_to_send
-- What is still to be delivered for the account, and how.
SELECT d.id, d.event, d.created_at, d.notice_id, jsonb_array_length(d.attempts) AS attempts,
       c.id AS channel_id, c.url, c.secret, c.paused_at,
       CASE WHEN c.old_secret_until > %(now)s THEN c.old_secret END AS old_secret,
       n.kind, n.data, n.created_at AS noticed_at
FROM delivery AS d JOIN channel AS c ON c.id = d.channel_id LEFT JOIN notice AS n ON n.id = d.notice_id
WHERE d.account_id = %(account)s AND d.id = %(delivery)s AND d.state = 'waiting'
  AND NOT EXISTS (SELECT FROM account WHERE account.id = d.account_id AND closing_at IS NOT NULL);

-- name: note_attempt
-- One attempt at a delivery of the account, and what has become of it.
UPDATE delivery SET state = %(state)s, attempts = attempts || %(attempt)s::jsonb
WHERE account_id = %(account)s AND id = %(delivery)s AND state = 'waiting'
RETURNING id;

-- name: note_channel_success
-- The account's channel works: one that was paused goes on.
UPDATE channel SET failures = 0, paused_at = NULL
WHERE account_id = %(account)s AND id = %(channel)s AND (failures > 0 OR paused_at IS NOT NULL);

-- name: note_channel_failure
-- One more in a row on the account's channel; comes back from the one that pauses it.
WITH counted AS (
    UPDATE channel SET failures = failures + 1,
        paused_at = CASE WHEN failures + 1 >= %(most)s THEN coalesce(paused_at, %(now)s) END
    WHERE account_id = %(account)s AND id = %(channel)s
    RETURNING name, url, failures
)
SELECT name, url FROM counted WHERE failures = %(most)s;

-- name: fail_waiting_deliveries
-- What waited for a channel of the account that is paused now.
UPDATE delivery SET state = 'failed'
WHERE account_id = %(account)s AND channel_id = %(channel)s AND state = 'waiting' AND event <> 'test';

-- name: unscoped_forget_deliveries
-- The log has its time, whosesoever it is.
DELETE FROM delivery WHERE created_at < %(before)s;
