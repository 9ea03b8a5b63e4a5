-- The SQL logins of accounts, and the record of the watch over them.

CREATE TABLE sql_login (
    account_id int PRIMARY KEY REFERENCES account ON DELETE CASCADE,
    role text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    strikes int NOT NULL DEFAULT 0,
    struck_at timestamptz
);
COMMENT ON TABLE sql_login IS 'Deleting a row drops the role; what a login sees is looked up here by session_user.';
COMMENT ON COLUMN sql_login.strikes IS 'How often in a row, at most 10 minutes apart, the watch had to step in.';

-- One row, or none before the first worker: when the watch last looked.
CREATE TABLE sql_watch (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50);
