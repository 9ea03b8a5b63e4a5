-- name: unscoped_hit
-- Counts an attempt where there is room; a stranger has no account yet. The row's lock makes
-- attempts at one key take turns, so no window ever holds more than the limit.
INSERT INTO throttle (hash, hits, refused, expires_at)
VALUES (%(hash)s, ARRAY[%(now)s::timestamptz], false, %(expires)s)
ON CONFLICT (hash) DO UPDATE SET (hits, refused, expires_at) = (
    SELECT CASE WHEN count(*) < %(limit)s THEN array_agg(hit) || %(now)s::timestamptz
                ELSE array_agg(hit) END,
           count(*) >= %(limit)s,
           CASE WHEN count(*) < %(limit)s THEN excluded.expires_at ELSE throttle.expires_at END
    FROM unnest(throttle.hits) AS hit WHERE hit > %(since)s
)
RETURNING refused, (SELECT min(hit) FROM unnest(hits) AS hit) AS oldest;

-- name: unscoped_forgive
-- Whoever got in has not been guessing, whatever account it was.
DELETE FROM throttle WHERE hash = %(hash)s;

-- name: unscoped_forgive_one
-- Takes one attempt back, whatever account it was for; the others stay.
UPDATE throttle SET hits = hits[:array_position(hits, %(at)s::timestamptz) - 1]
                        || hits[array_position(hits, %(at)s::timestamptz) + 1:]
WHERE hash = %(hash)s AND %(at)s::timestamptz = ANY (hits);

-- name: unscoped_forget_throttle
-- Attempts that no window holds any more, of no account in particular.
DELETE FROM throttle WHERE expires_at <= %(now)s;
