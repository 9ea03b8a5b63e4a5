-- People: what an account knows of its person, how they sign in, and where they are signed in.

ALTER TABLE account
    ADD COLUMN first_name text,
    ADD COLUMN surname text,
    ADD COLUMN time_zone text NOT NULL DEFAULT 'UTC',
    ADD COLUMN password_hash text,
    ADD COLUMN email_verified_at timestamptz,
    ADD COLUMN age_confirmed_at timestamptz,
    ADD COLUMN policy_version text,
    ADD COLUMN policy_accepted_at timestamptz,
    ADD COLUMN operator boolean NOT NULL DEFAULT false,
    ADD COLUMN disabled_at timestamptz;
-- until now every account was made by an operator
UPDATE account SET email_verified_at = created_at;
CREATE INDEX account_unverified ON account (created_at) WHERE email_verified_at IS NULL;
COMMENT ON COLUMN account.password_hash IS 'argon2id, or bcrypt until the first sign-in after an import; null where somebody else vouches.';
COMMENT ON COLUMN account.email_verified_at IS 'Null: a registration nobody has confirmed, erased after 7 days.';
COMMENT ON COLUMN account.age_confirmed_at IS 'When the person said they are 13 or older.';
COMMENT ON COLUMN account.operator IS 'May look at counts and states of every account, never at readings.';
COMMENT ON COLUMN account.disabled_at IS 'By an operator: nothing but export and deletion is left to it.';

CREATE TABLE session (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    hash bytea UNIQUE,
    method text NOT NULL,
    created_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    authenticated_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    ip inet,
    agent text,
    CHECK ((hash IS NULL) = (ended_at IS NOT NULL))
);
CREATE INDEX session_account ON session (account_id, created_at DESC);
CREATE INDEX session_old ON session (created_at);
COMMENT ON COLUMN session.hash IS 'SHA-256 of the cookie''s 256 random bits; null once ended.';
COMMENT ON COLUMN session.authenticated_at IS 'When the person last proved who they are.';
COMMENT ON COLUMN session.expires_at IS 'The latest it can last, however much it is used.';

-- What is mailed to prove an address or a person: used once, by its hash.
CREATE TABLE account_token (
    hash bytea PRIMARY KEY,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    purpose text NOT NULL
        CHECK (purpose IN ('verify_email', 'change_email', 'reset_password', 'reauthenticate')),
    email text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX account_token_account ON account_token (account_id, purpose);
CREATE INDEX account_token_expiry ON account_token (expires_at);
COMMENT ON COLUMN account_token.email IS 'Where it was mailed to; with change_email the address to be.';

-- Who vouches for an account besides its password.
CREATE TABLE identity (
    provider text NOT NULL,
    subject text NOT NULL,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    email text NOT NULL,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    PRIMARY KEY (provider, subject),
    UNIQUE (account_id, provider)
);
COMMENT ON COLUMN identity.subject IS 'The provider''s own number of the person, which outlives names and addresses.';

-- A sign-in that has gone to a provider and is not back yet.
CREATE TABLE sign_in_attempt (
    hash bytea PRIMARY KEY,
    provider text NOT NULL,
    code_verifier text NOT NULL,
    return_to text NOT NULL,
    age_confirmed boolean NOT NULL,
    account_id int REFERENCES account ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sign_in_attempt_expiry ON sign_in_attempt (expires_at);
COMMENT ON COLUMN sign_in_attempt.account_id IS 'The signed-in account that asked to be joined with the provider.';

ALTER TABLE api_key ADD COLUMN last_used_ip inet;
ALTER TABLE device
    ADD COLUMN secret_used_at timestamptz,
    ADD COLUMN secret_used_ip inet;
COMMENT ON COLUMN device.secret_used_at IS 'When its secret was last accepted, over HTTP or by the broker; at most once a minute.';

-- a disabled account's devices are cut off with it
CREATE TRIGGER credentials AFTER UPDATE OF disabled_at ON account
    FOR EACH STATEMENT EXECUTE FUNCTION notify_credentials();
