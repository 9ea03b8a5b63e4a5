-- What people are told, and the mail that tells it.

ALTER TABLE account
    ADD COLUMN pending_email text,
    ADD COLUMN unsubscribe_secret bytea NOT NULL
        DEFAULT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');
COMMENT ON COLUMN account.pending_email IS 'The address to be, until its person has shown that it is theirs.';
COMMENT ON COLUMN account.unsubscribe_secret IS '244 random bits that sign the unsubscribe links of the account''s mails.';

CREATE TABLE notice (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('device', 'usage', 'billing', 'security', 'export')),
    event text NOT NULL,
    data jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(data) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    read_at timestamptz,
    mail_to text,
    mailed_at timestamptz
);
CREATE INDEX notice_account ON notice (account_id, id DESC);
CREATE INDEX notice_age ON notice (created_at);
COMMENT ON COLUMN notice.data IS 'What the event''s text names; never a secret.';
COMMENT ON COLUMN notice.mail_to IS 'Where it is mailed to instead of the account''s address; null once mailed.';

CREATE TABLE notification_preference (
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('device', 'usage', 'billing', 'export')),
    mail boolean NOT NULL,
    PRIMARY KEY (account_id, kind)
);
COMMENT ON TABLE notification_preference IS 'What somebody chose; a kind without a row is mailed. Security cannot be chosen.';

-- Why a job failed the last time. No reference to procrastinate's table: it is made after this.
CREATE TABLE job_error (
    job_id bigint PRIMARY KEY,
    error text NOT NULL,
    at timestamptz NOT NULL
);
COMMENT ON COLUMN job_error.error IS 'Our own words, or the name of the exception: never what it says, which may be personal.';

-- One row: what has been reported to the operator by mail.
CREATE TABLE operator_report (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    mailed_at timestamptz NOT NULL,
    covered_until timestamptz NOT NULL
);
INSERT INTO operator_report (mailed_at, covered_until) VALUES ('epoch', 'epoch');
COMMENT ON COLUMN operator_report.covered_until IS 'Jobs that failed up to then stand in a report.';
