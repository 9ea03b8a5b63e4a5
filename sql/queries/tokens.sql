-- name: create_token
-- A token mailed to the account's person, by its hash.
INSERT INTO account_token (hash, account_id, purpose, email, created_at, expires_at)
VALUES (%(hash)s, %(account)s, %(purpose)s, %(email)s, %(now)s, %(expires)s)
ON CONFLICT (hash) DO NOTHING;

-- name: end_tokens
-- Only the newest token of an account and purpose is good.
DELETE FROM account_token WHERE account_id = %(account)s AND purpose = %(purpose)s;

-- name: unscoped_redeem_token
-- The token tells whose it is; whoever deletes it has used it, so it is used once.
DELETE FROM account_token
WHERE hash = %(hash)s AND purpose = ANY (%(purposes)s) AND expires_at > %(now)s
RETURNING account_id, purpose, email;

-- name: unscoped_forget_tokens
-- Expired tokens and sign-ins that never came back, whosesoever they are.
WITH attempts AS (DELETE FROM sign_in_attempt WHERE expires_at <= %(now)s)
DELETE FROM account_token WHERE expires_at <= %(now)s;
