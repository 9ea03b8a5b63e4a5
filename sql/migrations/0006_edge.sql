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

-- A plan's requests a minute: one row for each account that asks, unlogged for the same reasons.
CREATE UNLOGGED TABLE request_window (
    account_id int PRIMARY KEY REFERENCES account ON DELETE CASCADE,
    ends_at timestamptz NOT NULL,
    taken int NOT NULL,
    granted int NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE request_window IS 'An API process takes several requests at a time from here, so that most requests write nothing.';
COMMENT ON COLUMN request_window.ends_at IS 'A window is the minute after the first request that found none open.';
COMMENT ON COLUMN request_window.taken IS 'Requests of this window that processes have taken; never more than the plan allows.';
COMMENT ON COLUMN request_window.granted IS 'How many the last one who asked was given; 0 where none were left.';

-- API usage: requests and the bytes of their bodies, for each key and UTC day.
CREATE TABLE api_usage_day (
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    day date NOT NULL,
    key_id int NOT NULL,
    requests bigint NOT NULL,
    bytes_in bigint NOT NULL,
    bytes_out bigint NOT NULL,
    PRIMARY KEY (account_id, day, key_id)
) WITH (fillfactor = 50);
COMMENT ON COLUMN api_usage_day.key_id IS '0: signed-in people. No reference: what a deleted key used stays counted.';
