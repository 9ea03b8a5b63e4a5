-- name: create_session
-- A session of the account's person; the token itself is stored nowhere.
INSERT INTO session (account_id, hash, method, created_at, seen_at, authenticated_at, expires_at,
                     ip, agent)
VALUES (%(account)s, %(hash)s, %(method)s, %(now)s, %(now)s, %(now)s, %(expires)s, %(ip)s, %(agent)s);

-- name: unscoped_find_session
-- The cookie tells which account it is: before this nothing is known but its hash.
SELECT session.id AS session_id, session.method, session.seen_at, session.authenticated_at,
       account.id, account.email, account.plan, account.tier, account.moving_from,
       account.readable_from, tier.retention, account.disabled_at, account.closing_at
FROM session JOIN account ON account.id = session.account_id JOIN tier ON tier.name = account.tier
WHERE session.hash = %(hash)s AND session.expires_at > %(now)s AND session.seen_at > %(idle_since)s;

-- name: note_session_seen
-- At most once a minute, so that reads stay reads.
UPDATE session SET seen_at = %(now)s WHERE account_id = %(account)s AND id = %(session)s;

-- name: renew_session
-- Rotation: the person has proved who they are, and a token known to somebody else is worth nothing.
UPDATE session SET hash = %(hash)s, authenticated_at = %(now)s, seen_at = %(now)s
WHERE account_id = %(account)s AND id = %(session)s AND ended_at IS NULL;

-- name: session_addresses
-- Whether the account has signed in before, and from this network.
SELECT count(*) AS sessions,
       bool_or(network(set_masklen(ip, CASE family(ip) WHEN 6 THEN 64 ELSE 32 END)) >>= %(ip)s::inet)
           AS known
FROM session WHERE account_id = %(account)s;

-- name: list_sessions
-- The account's own sessions, newest first.
SELECT id, method, created_at, seen_at, expires_at, ended_at, ip, agent
FROM session WHERE account_id = %(account)s ORDER BY created_at DESC, id DESC LIMIT %(limit)s;

-- name: end_session
-- One of the account's sessions.
UPDATE session SET hash = NULL, ended_at = %(now)s
WHERE account_id = %(account)s AND id = %(session)s AND ended_at IS NULL
RETURNING id;

-- name: end_sessions
-- Every session of the account, or every one but the one that asks; a change of address that one of
-- them asked for ends with them.
WITH ended AS (
    DELETE FROM account_token WHERE account_id = %(account)s AND purpose = 'change_email'
), forgotten AS (
    UPDATE account SET pending_email = NULL WHERE id = %(account)s AND pending_email IS NOT NULL
)
UPDATE session SET hash = NULL, ended_at = %(now)s
WHERE account_id = %(account)s AND ended_at IS NULL
  AND (%(but)s::bigint IS NULL OR id <> %(but)s);

-- name: unscoped_end_expired_sessions
-- What can no longer be used is ended, whosesoever it is, so that its record ages.
UPDATE session SET hash = NULL, ended_at = least(expires_at, %(now)s)
WHERE ended_at IS NULL AND (expires_at <= %(now)s OR seen_at <= %(idle_since)s);
