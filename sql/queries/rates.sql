-- name: lease_requests
-- Takes requests out of the account's minute for one process: as many as it wants, but never more
-- than a sixteenth of what is left, one at least while there is one. The row's lock makes
-- processes take turns, and one that waited for its turn brings an earlier time: a window is not
-- another clock's before it ends 10 s too late. Gives no row where there is no such account any more.
INSERT INTO request_window AS w (account_id, ends_at, taken, granted)
SELECT id, %(ends)s, 1, 1 FROM account WHERE id = %(account)s
ON CONFLICT (account_id) DO UPDATE SET (ends_at, taken, granted) = (
    SELECT open.ends_at, open.taken + lease.size, lease.size
    FROM (SELECT w.ends_at > %(now)s AND w.ends_at <= excluded.ends_at + interval '10 s' AS going) AS old
    CROSS JOIN LATERAL (
        SELECT CASE WHEN old.going THEN w.ends_at ELSE excluded.ends_at END AS ends_at,
               CASE WHEN old.going THEN w.taken ELSE 0 END AS taken
    ) AS open
    CROSS JOIN LATERAL (
        SELECT greatest(0, least(%(limit)s - open.taken,
            greatest(1, least(%(want)s, (%(limit)s - open.taken) / 16)))) AS size
    ) AS lease
)
RETURNING ends_at, taken, granted;
