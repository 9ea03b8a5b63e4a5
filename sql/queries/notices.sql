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
SELECT kind, mail FROM notification_preference WHERE account_id = %(account)s;

-- name: set_preferences
-- Several kinds at once; what is not named stays.
INSERT INTO notification_preference (account_id, kind, mail)
SELECT %(account)s, kind, mail FROM unnest(%(kinds)s::text[], %(mails)s::boolean[]) AS t (kind, mail)
ON CONFLICT (account_id, kind) DO UPDATE SET mail = EXCLUDED.mail;

-- name: unsubscribe_secret
-- What signs the account's unsubscribe links.
SELECT unsubscribe_secret FROM account WHERE id = %(account)s;

-- name: mail_person
-- Whom a mail of the account goes to, and how to speak to them.
SELECT id, email, pending_email, first_name, time_zone, email_verified_at IS NOT NULL AS verified,
       disabled_at IS NOT NULL AS disabled, unsubscribe_secret
FROM account WHERE id = %(account)s;

-- name: unscoped_forget_notices
-- Notices have their time, whosesoever they are; security records a shorter one.
DELETE FROM notice
WHERE created_at < CASE kind WHEN 'security' THEN %(security)s::timestamptz
                             ELSE %(others)s::timestamptz END;
