-- name: unscoped_torture_backends
-- The server's processes that write for ingest: a kill test's targets, nobody's data.
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'paqett ingest' ORDER BY pid;

-- name: unscoped_torture_terminate
-- Ends one of them where the server is another machine's.
SELECT pg_terminate_backend(%(pid)s::int) AS ended;

-- name: unscoped_torture_worker
-- Whether a worker is connected, nobody's data.
SELECT count(*) AS connections FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'paqett worker';

-- name: torture_flows
-- Whether a reading the accounts' devices measured after a moment is stored: one look into the
-- index for each series, however much the chunk holds.
SELECT EXISTS (
    SELECT FROM series AS s CROSS JOIN LATERAL (
        SELECT FROM {tier} AS r WHERE r.series_id = s.id AND r.time > %(since)s LIMIT 1
    ) AS found
    WHERE s.account_id = ANY (%(accounts)s::int[])
) AS flows;

-- name: unscoped_torture_stage
-- Where the ledger of acknowledged readings is put beside what is stored; gone with the session.
CREATE TEMPORARY TABLE staged_promise (device_id text, time_us bigint, points int);

-- name: unscoped_torture_promises
-- Fills it from the ledger's file.
COPY staged_promise (device_id, time_us, points) FROM STDIN;

-- name: torture_balance
-- What was promised to the accounts' devices and what is stored, in points. The server sorts on its
-- disk what does not fit its memory, so millions of readings are no matter.
WITH kept AS (
    SELECT s.device_id, r.time, count(*) AS points
    FROM series AS s JOIN {tier} AS r ON r.series_id = s.id
    WHERE s.account_id = ANY (%(accounts)s::int[]) AND r.time >= %(since)s
    GROUP BY s.device_id, r.time
), promised AS (
    SELECT device_id, timestamptz 'epoch' + time_us * interval '1 microsecond' AS time, points
    FROM staged_promise
)
SELECT coalesce(sum(promised.points), 0)::bigint AS promised,
       coalesce(sum(kept.points), 0)::bigint AS stored,
       coalesce(sum(greatest(promised.points - coalesce(kept.points, 0), 0)), 0)::bigint AS missing,
       coalesce(sum(greatest(kept.points - promised.points, 0)), 0)::bigint AS doubled
FROM promised FULL JOIN kept USING (device_id, time);
