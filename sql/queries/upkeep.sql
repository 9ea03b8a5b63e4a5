-- name: unscoped_forget_sessions
-- The record of a sign-in has its time, whosesoever it is; a session that lives is kept.
DELETE FROM session WHERE coalesce(ended_at, expires_at) < %(before)s;

-- name: unscoped_unconfirmed_accounts
-- Registrations nobody confirmed. Looked for first, since a DELETE takes the directory's lock.
SELECT id FROM account
WHERE email_verified_at IS NULL AND created_at < %(before)s
  AND NOT EXISTS (SELECT FROM device WHERE device.account_id = account.id);

-- name: erase_unconfirmed_account
-- Unless it was confirmed this very moment.
DELETE FROM account WHERE id = %(account)s AND email_verified_at IS NULL AND created_at < %(before)s
  AND NOT EXISTS (SELECT FROM device WHERE device.account_id = account.id);
