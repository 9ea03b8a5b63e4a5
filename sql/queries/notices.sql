-- name: create_notice
-- Something the account's person is told.
INSERT INTO notice (account_id, kind, event, data, mail_to)
VALUES (%(account)s, %(kind)s, %(event)s, %(data)s, %(mail_to)s)
RETURNING id;

-- name: list_notices
-- The account's notices, newest first, of one kind or of all, about some devices or anything.
SELECT id, kind, event, data, created_at, read_at FROM notice
WHERE account_id = %(account)s AND (%(kind)s::text IS NULL OR kind = %(kind)s)
  AND (%(devices)s::text[] IS NULL OR data ->> 'device' = ANY (%(devices)s))
  AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC LIMIT %(limit)s;

-- name: notice_to_mail
-- A notice of the account that has not been mailed yet.
SELECT id, kind, event, data, created_at, mail_to FROM notice
WHERE account_id = %(account)s AND id = %(notice)s AND mailed_at IS NULL;

-- name: note_notice_mailed
-- Mailed: an address that is no longer the account's is kept no longer.
UPDATE notice SET mailed_at = %(now)s, mail_to = NULL
WHERE account_id = %(account)s AND id = %(notice)s;

-- name: preferences
-- What the account's person chose, kind by kind.
SELECT kind, mail, webhook FROM notification_preference WHERE account_id = %(account)s;

-- name: set_preferences
-- Several kinds at once; what is not named stays.
INSERT INTO notification_preference (account_id, kind, mail, webhook)
SELECT %(account)s, t.kind, coalesce(t.mail, p.mail, true), coalesce(t.webhook, p.webhook, true)
FROM unnest(%(kinds)s::text[], %(mails)s::boolean[], %(webhooks)s::boolean[]) AS t (kind, mail, webhook)
LEFT JOIN notification_preference AS p ON p.account_id = %(account)s AND p.kind = t.kind
WHERE t.mail IS NOT NULL OR t.webhook IS NOT NULL
ON CONFLICT (account_id, kind) DO UPDATE SET mail = EXCLUDED.mail, webhook = EXCLUDED.webhook;

-- name: count_mail
-- One of the account's mails of a day, where there is room for it; a notice that was counted on any
-- day is not counted again.
INSERT INTO mail_day AS m (account_id, day, mails)
SELECT %(account)s, %(day)s, (admitted_on IS NULL)::int FROM notice
WHERE account_id = %(account)s AND id = %(notice)s AND (admitted_on IS NOT NULL OR %(most)s > 0)
ON CONFLICT (account_id, day) DO UPDATE SET mails = m.mails + EXCLUDED.mails
    WHERE EXCLUDED.mails = 0 OR m.mails < %(most)s
RETURNING mails;

-- name: note_admission
-- Whether the account's notice is mailed or held back, and on which day.
UPDATE notice SET
    admitted_on = CASE WHEN %(admitted)s THEN coalesce(admitted_on, %(day)s::date) END,
    held_on = CASE WHEN %(admitted)s THEN NULL ELSE %(day)s::date END
WHERE account_id = %(account)s AND id = %(notice)s;

-- name: unscoped_open_mail_days
-- Days that are over and not summed up, whosesoever they are.
SELECT account_id, day FROM mail_day WHERE NOT summed_up AND day < %(today)s ORDER BY day, account_id;

-- name: claim_mail_day
-- One worker sums a day of the account up.
UPDATE mail_day SET summed_up = true
WHERE account_id = %(account)s AND day = %(day)s AND NOT summed_up RETURNING day;

-- name: held_notices
-- What of the account's notices was not mailed on a day.
SELECT event, data FROM notice WHERE account_id = %(account)s AND held_on = %(day)s ORDER BY id;

-- name: unscoped_forget_mail_days
-- Counters of days long past, whosesoever they are.
DELETE FROM mail_day WHERE summed_up AND day < %(before)s;

-- name: unsubscribe_secret
-- What signs the account's unsubscribe links.
SELECT unsubscribe_secret FROM account WHERE id = %(account)s;

-- name: mail_person
-- Whom a mail of the account goes to, and how to speak to them.
SELECT id, email, pending_email, first_name, time_zone, email_verified_at IS NOT NULL AS verified,
       disabled_at IS NOT NULL AS disabled, closing_at IS NOT NULL AS closing, unsubscribe_secret
FROM account WHERE id = %(account)s;

-- name: unscoped_claim_policy_change
-- Some who were not told of a version of the privacy policy, whosesoever they are, and are told of
-- it in this transaction; another worker takes others.
WITH claimed AS MATERIALIZED (
    SELECT id FROM account
    WHERE policy_told < %(version)s AND email_verified_at IS NOT NULL AND closing_at IS NULL
    ORDER BY id LIMIT %(most)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE account SET policy_told = %(version)s FROM claimed WHERE account.id = claimed.id
RETURNING account.id;

-- name: unscoped_forget_notices
-- Notices have their time, whosesoever they are: security records a shorter one, and those about
-- devices, which name values, no longer than their account's tier.
DELETE FROM notice USING account, tier
WHERE account.id = notice.account_id AND tier.name = account.tier
  AND notice.created_at < %(now)s::timestamptz - CASE notice.kind
      WHEN 'security' THEN %(security)s::interval
      WHEN 'device' THEN least(%(others)s::interval, tier.retention)
      ELSE %(others)s::interval END;
