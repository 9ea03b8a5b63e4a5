-- name: lock_closing_account
-- One at a time asks for, undoes or begins the account's deletion.
SELECT id, email, closing_at, erasing FROM account WHERE id = %(account)s FOR UPDATE;

-- name: set_closing
-- The account closes or, with null, opens again; devices, doors and streams follow.
UPDATE account SET closing_at = %(at)s WHERE id = %(account)s;

-- name: ask_erasure
-- The account's erasure; asked for again, it only comes sooner.
INSERT INTO erasure AS e (account_id, asked_by, asked_at, due_at, queued_at)
VALUES (%(account)s, %(by)s, %(now)s, %(due)s, %(queued)s)
ON CONFLICT (account_id) WHERE device_id IS NULL DO UPDATE
    SET due_at = least(e.due_at, EXCLUDED.due_at), queued_at = coalesce(e.queued_at, EXCLUDED.queued_at)
RETURNING id, asked_at, due_at;

-- name: add_receipt_token
-- One more token that shows the receipt of an account's erasure.
UPDATE erasure SET receipt_hashes = receipt_hashes || %(hash)s::bytea WHERE id = %(erasure)s;

-- name: erasure_of_account
-- The account's own erasure, while it has not been done.
SELECT id, asked_at, due_at, begun_at, finished_at, step, erased, kept
FROM erasure WHERE account_id = %(account)s AND device_id IS NULL;

-- name: unscoped_receipt
-- Whoever holds the token may see the receipt, which names no account.
SELECT id, asked_at, due_at, begun_at, finished_at, step, erased, kept
FROM erasure WHERE %(hash)s::bytea = ANY (receipt_hashes);

-- name: forget_erasure
-- The account's deletion is undone.
DELETE FROM erasure WHERE account_id = %(account)s AND device_id IS NULL;

-- name: revoke_keys
-- Every API key of the account.
DELETE FROM api_key WHERE account_id = %(account)s;

-- name: end_streams
-- Every live stream of the account.
DELETE FROM stream WHERE account_id = %(account)s;

-- name: restart_silence
-- What the account's devices could not send while it was closing is no silence of theirs.
UPDATE alert_rule SET changed_at = %(now)s WHERE account_id = %(account)s AND kind <> 'threshold';

-- name: erase_device_later
-- The account's device is gone; what is left of it is erased by a job.
INSERT INTO erasure (account_id, device_id, series_ids, asked_by, asked_at, due_at, queued_at)
VALUES (%(account)s, %(id)s, %(series)s, 'person', now(), now(), now())
RETURNING id;

-- name: unscoped_claim_due_erasures
-- Whosesoever time has come; claimed, so that each gets one job.
UPDATE erasure SET queued_at = %(now)s WHERE due_at <= %(now)s AND queued_at IS NULL RETURNING id;

-- name: unscoped_erasure
-- What a job is to erase; the job knows its number alone.
SELECT e.id, e.account_id, e.device_id, e.series_ids, e.asked_by, e.step, e.reached, e.erased,
       e.finished_at, a.email, a.pending_email, a.created_at AS made_at,
       a.email_verified_at IS NOT NULL AS verified, s.customer_id AS customer
FROM erasure AS e LEFT JOIN account AS a ON a.id = e.account_id
LEFT JOIN subscription AS s ON s.account_id = e.account_id
WHERE e.id = %(erasure)s;

-- name: begin_erasure
-- From here on nothing brings the account back, and none of its readings moves any more. A deletion
-- that was undone meanwhile begins nothing, also where the account is to be deleted again.
UPDATE account SET erasing = true, moving_from = NULL, tier_due_at = NULL
WHERE id = %(account)s AND closing_at IS NOT NULL
  AND EXISTS (SELECT FROM erasure WHERE id = %(erasure)s);

-- name: note_begun
-- The account's erasure has begun, or its device's.
UPDATE erasure SET begun_at = coalesce(begun_at, %(now)s), queued_at = coalesce(queued_at, %(now)s)
WHERE id = %(erasure)s;

-- name: note_step
-- Where the erasure of an account goes on after a crash.
UPDATE erasure SET step = %(step)s, kept = coalesce(%(kept)s, kept) WHERE id = %(erasure)s;

-- name: note_erased
-- Rows that went in this transaction, added up for the receipt of the account.
UPDATE erasure SET reached = coalesce(%(reached)s, reached), erased = erased || (
    SELECT coalesce(jsonb_object_agg(key, coalesce((erased ->> key)::bigint, 0) + value::bigint), '{}')
    FROM jsonb_each_text(%(rows)s::jsonb))
WHERE id = %(erasure)s;

-- name: series_of_account
-- Every series of the account, and those of its devices that are being erased.
SELECT id FROM series WHERE account_id = %(account)s
UNION
SELECT unnest(series_ids) FROM erasure WHERE account_id = %(account)s
ORDER BY id;

-- name: devices_of_account
-- Every device of the account, and those that are being erased.
SELECT id FROM device WHERE account_id = %(account)s
UNION
SELECT device_id FROM erasure WHERE account_id = %(account)s AND device_id IS NOT NULL
ORDER BY id;

-- name: left_readings
-- Whether a chunk holds any reading of the account, by whatever series: those there are.
SELECT DISTINCT series_id FROM {readings}
WHERE account_id = %(account)s AND time >= %(from)s AND time < %(to)s;

-- name: erase_account_rows
-- Some rows of the account, of one table.
SELECT table_name::text AS table_name, rows FROM erase_account_rows(%(account)s, %(most)s);

-- name: count_account_rows
-- What is left of the account beside its own row and its readings.
SELECT table_name::text AS table_name, rows FROM count_account_rows(%(account)s);

-- name: erase_jobs
-- The account's jobs that nobody has in hand, with why they failed.
WITH gone AS (
    DELETE FROM procrastinate_jobs
    WHERE args ->> 'account_id' = %(account)s::int::text AND status <> 'doing' RETURNING id
), errors AS (DELETE FROM job_error WHERE job_id IN (SELECT id FROM gone))
SELECT count(*) AS rows FROM gone;

-- name: count_jobs
-- The account's jobs, whether they wait or are in hand.
SELECT count(*) AS jobs FROM procrastinate_jobs WHERE args ->> 'account_id' = %(account)s::int::text;

-- name: erase_account
-- The account's own row, after everything else.
DELETE FROM account WHERE id = %(account)s AND erasing RETURNING id;

-- name: finish_erasure
-- What is left is the receipt, which names no account; the address goes when it is mailed.
UPDATE erasure SET account_id = NULL, finished_at = %(now)s, step = 'done', reached = NULL,
    mail_to = %(mail_to)s
WHERE id = %(erasure)s;

-- name: forget_device_erasures
-- The account's devices that were being erased went with it.
DELETE FROM erasure WHERE account_id = %(account)s AND device_id IS NOT NULL;

-- name: unscoped_forget_device_erasure
-- A device's erasure is done; the account it was of keeps no record of it here.
DELETE FROM erasure WHERE id = %(erasure)s AND device_id IS NOT NULL;

-- name: erase_device_refusals
-- What was refused of the account's device, some rows at a time.
DELETE FROM rejection_hour WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM rejection_hour WHERE account_id = %(account)s AND device_id = %(id)s LIMIT %(most)s));

-- name: unscoped_clear_directory
-- Nobody's device is named any more once its change has been heard of: one mark takes the place of
-- all, and makes every directory forget everything it knows.
WITH gone AS (DELETE FROM directory_change)
INSERT INTO directory_change (account_id, device_id) VALUES (0, NULL);

-- name: unscoped_old_directory_changes
-- Whether there are changes of any account that everybody has heard of by now.
SELECT EXISTS (SELECT FROM directory_change WHERE account_id <> 0 AND at < %(before)s) AS found;

-- name: unscoped_receipt_to_mail
-- A receipt that has not been mailed yet; held, so that two workers mail one.
SELECT id, finished_at, asked_at, due_at, begun_at, step, erased, kept, mail_to FROM erasure
WHERE id = %(erasure)s AND mail_to IS NOT NULL;

-- name: unscoped_note_receipt_mailed
-- The address is kept no longer, whether the receipt arrived or was given up.
UPDATE erasure SET mail_to = NULL WHERE id = %(erasure)s;

-- name: unscoped_forget_receipt_addresses
-- Receipts that could not be mailed within their time, whosesoever they were.
UPDATE erasure SET mail_to = NULL WHERE mail_to IS NOT NULL AND finished_at < %(before)s;

-- name: unscoped_analyze_account_tables
-- The planner's samples of what is gone, of whichever account.
SELECT analyze_account_tables();

-- name: same_account
-- Whether the account of a tombstone is there again: its number and the moment it was made.
SELECT id FROM account WHERE id = %(account)s AND created_at = %(made_at)s;

-- name: unscoped_owner_of_device
-- Whether the device of a tombstone is there again, and whose it is.
SELECT account_id FROM device WHERE id = %(device)s;

-- name: find_erasure
-- The erasure of the account, or of its device.
SELECT id FROM erasure
WHERE account_id = %(account)s AND device_id IS NOT DISTINCT FROM %(device)s::text;

-- name: erase_exports
-- The account's exports; whoever writes one of them finds it gone and stops.
DELETE FROM export WHERE account_id = %(account)s;
