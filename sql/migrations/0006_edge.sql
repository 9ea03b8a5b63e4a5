-- What guards the doors: attempts of strangers.

-- Unlogged: every attempt writes here, nothing else hangs on it, and what a crash of the server
-- forgets is at most the last windows of a stranger's attempts.
CREATE UNLOGGED TABLE throttle (
    hash bytea PRIMARY KEY,
    hits timestamptz[] NOT NULL,
    refused boolean NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON COLUMN throttle.hash IS 'SHA-256 of a rule''s name and what it counts by: no address stands here in clear.';
COMMENT ON COLUMN throttle.hits IS 'When each counted attempt of the window was; never more than the rule''s limit.';
COMMENT ON COLUMN throttle.refused IS 'Whether the last attempt was: how the one statement that counts tells what it did.';
COMMENT ON COLUMN throttle.expires_at IS 'When the newest hit leaves the window; without an index, so that updates stay on their page.';
