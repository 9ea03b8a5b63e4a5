-- Export All My Data, and the record of the checks that promises are kept.

CREATE TABLE export (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    format text NOT NULL CHECK (format IN ('ndjson', 'csv')),
    status text NOT NULL DEFAULT 'waiting'
        CHECK (status IN ('waiting', 'running', 'ready', 'failed', 'expired')),
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    expires_at timestamptz,
    progress float8 NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 1),
    rows bigint NOT NULL DEFAULT 0,
    bytes bigint,
    sha256 text
) WITH (fillfactor = 50);
-- one at a time, and what a second request runs into
CREATE UNIQUE INDEX export_open ON export (account_id) WHERE status IN ('waiting', 'running');
CREATE INDEX export_account ON export (account_id, id DESC);
CREATE INDEX export_expiry ON export (expires_at) WHERE status = 'ready';
COMMENT ON COLUMN export.progress IS 'How much of it is written, 0 to 1.';
COMMENT ON COLUMN export.rows IS 'Rows written so far, in all files.';
COMMENT ON COLUMN export.bytes IS 'The archive''s size; null until it is ready.';
COMMENT ON COLUMN export.sha256 IS 'Of the whole archive.';

CREATE TABLE privacy_check (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    passed boolean NOT NULL,
    report jsonb NOT NULL
);
COMMENT ON TABLE privacy_check IS 'What `paqett privacy check` found: counts, ages and names of tables, nobody''s data.';

-- the connection log is forgotten by its age
CREATE INDEX device_event_age ON device_event (time);
