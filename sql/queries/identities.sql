-- name: create_sign_in_attempt
-- Somebody goes to a provider; the state they take along is stored as its hash (account_id: to join).
INSERT INTO sign_in_attempt (hash, provider, code_verifier, return_to, age_confirmed, account_id,
                             created_at, expires_at)
VALUES (%(hash)s, %(provider)s, %(code_verifier)s, %(return_to)s, %(age_confirmed)s,
        %(account_id)s, %(now)s, %(expires)s);

-- name: unscoped_take_sign_in_attempt
-- Whoever deletes it comes back with it, so it works once.
DELETE FROM sign_in_attempt
WHERE hash = %(hash)s AND provider = %(provider)s AND expires_at > %(now)s
RETURNING provider, code_verifier, return_to, age_confirmed, account_id;

-- name: unscoped_use_identity
-- The provider tells which account it is.
UPDATE identity SET last_used_at = %(now)s
WHERE provider = %(provider)s AND subject = %(subject)s
RETURNING account_id;

-- name: create_identity
-- One provider for each account, one account for each of the provider's persons.
INSERT INTO identity (provider, subject, account_id, email, created_at, last_used_at)
VALUES (%(provider)s, %(subject)s, %(account)s, %(email)s, %(now)s, %(now)s)
ON CONFLICT DO NOTHING
RETURNING account_id;

-- name: delete_identity
-- The account is no longer signed in to by this provider.
DELETE FROM identity WHERE account_id = %(account)s AND provider = %(provider)s;
