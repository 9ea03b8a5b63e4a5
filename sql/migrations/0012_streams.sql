-- Live streams: who is watching, so that a flush tells only what somebody sees.

CREATE UNLOGGED TABLE stream (
    id uuid PRIMARY KEY,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    device_id text REFERENCES device ON DELETE CASCADE,
    key_id int REFERENCES api_key ON DELETE CASCADE,
    session_id bigint REFERENCES session ON DELETE CASCADE,
    until timestamptz NOT NULL
);
CREATE INDEX stream_account ON stream (account_id);
COMMENT ON TABLE stream IS 'Open live streams. Unlogged: after a crash of the database none of them is open.';
COMMENT ON COLUMN stream.device_id IS 'Null: every device of the account.';
COMMENT ON COLUMN stream.until IS 'Moved on while somebody reads; a stream whose process died ends by itself.';

-- Readings travel to the API's processes by NOTIFY, which every login may listen to that knows the
-- channel's name. So the name is a secret of Paqett's own roles.
CREATE TABLE live_channel (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    name text NOT NULL DEFAULT 'live_' || replace(gen_random_uuid()::text, '-', '')
);
INSERT INTO live_channel DEFAULT VALUES;
