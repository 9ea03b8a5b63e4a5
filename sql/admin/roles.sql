-- What each role may do: the least its process needs. Re-run at every migrate.
-- Role names carry the database's name, since roles belong to the whole cluster.
DO $$
DECLARE
    api text := current_database() || '_api';
    ingest text := current_database() || '_ingest';
    worker text := current_database() || '_worker';
    everyone text := format('%I, %I, %I', api, ingest, worker);
    part record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = api) THEN
        RETURN; -- a managed server where the roles could not be made: everything runs as the owner
    END IF;
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA public FROM %s', everyone);
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %s', everyone);
    EXECUTE format('GRANT SELECT ON tier, series, schema_migration TO %s', everyone);
    EXECUTE format('GRANT SELECT ON account, device TO %I, %I', api, worker);
    -- what a flush needs: no address, no verifier
    EXECUTE format('GRANT SELECT (id, plan, tier, moving_from, readable_from) ON account TO %I', ingest);
    EXECUTE format('GRANT SELECT (id, plan, tier, moving_from, closing_at) ON account TO %I', ingest);
    EXECUTE format('GRANT SELECT (id, account_id, clock, mac_address, firmware_version, attributes) ON device TO %I', ingest);
    EXECUTE format('GRANT SELECT ON directory_change TO %I, %I', ingest, api);
    EXECUTE format('GRANT INSERT ON directory_change TO %I, %I', api, worker);

    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON api_key, device, series TO %I', api);
    EXECUTE format('GRANT SELECT ON usage_hour, rejection_hour, device_event TO %I', api);
    EXECUTE format('GRANT SELECT ON broker_record TO %I', api);

    EXECUTE format('GRANT INSERT ON series TO %I', ingest);
    EXECUTE format('GRANT UPDATE (mac_address, firmware_version, attributes) ON device TO %I', ingest);
    -- through both doors: MQTT in ingest, HTTP in the API
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON usage_hour, rejection_hour, allowance TO %I, %I', ingest, api);
    EXECUTE format('GRANT SELECT, INSERT ON rejection TO %I, %I', ingest, api);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON spool_place TO %I', ingest);

    EXECUTE format('GRANT UPDATE ON account TO %I', worker);
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON device_event TO %I', worker);
    EXECUTE format('GRANT UPDATE ON device TO %I', worker);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON broker_record TO %I', worker);
    EXECUTE format('GRANT SELECT, DELETE ON usage_hour, rejection_hour, rejection, allowance, directory_change TO %I', worker);

    FOR part IN SELECT name, suffix FROM tier, (VALUES (''), ('_text')) AS s (suffix) LOOP
        EXECUTE format('GRANT SELECT, DELETE ON %I TO %I, %I', 'telemetry_' || part.name || part.suffix, api, worker);
        EXECUTE format('GRANT INSERT ON %I TO %I, %I, %I', 'telemetry_' || part.name || part.suffix, ingest, api, worker);
        EXECUTE format('GRANT SELECT ON %I TO %I', 'telemetry_' || part.name || part.suffix, ingest);
    END LOOP;

    -- people: registration, sign-in and the mails that prove addresses
    EXECUTE format('GRANT INSERT, UPDATE ON account TO %I', api);
    EXECUTE format('GRANT DELETE ON account TO %I', worker);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON session, account_token, identity, sign_in_attempt TO %I, %I', api, worker);

    -- billing: begun in the API, followed by the worker; devices are paused by both
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON subscription TO %I, %I', api, worker);
    EXECUTE format('GRANT SELECT, INSERT ON stripe_event TO %I', api);
    EXECUTE format('GRANT SELECT, DELETE ON stripe_event TO %I', worker);
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON usage_warning TO %I', worker);

    -- the doors: strangers' attempts, requests a minute, API usage
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON request_window, api_usage_day TO %I', api);
    EXECUTE format('GRANT SELECT, DELETE ON request_window, api_usage_day TO %I', worker);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON throttle TO %I', api);
    EXECUTE format('GRANT SELECT, DELETE ON throttle TO %I', worker);
    -- notices are written by whoever notices something, mailed and forgotten by the worker
    EXECUTE format('GRANT SELECT, INSERT ON notice TO %I, %I', api, worker);
    EXECUTE format('GRANT UPDATE, DELETE ON notice TO %I', worker);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON notification_preference TO %I', api);
    EXECUTE format('GRANT SELECT ON notification_preference TO %I', worker);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON job_error TO %I', worker);
    EXECUTE format('GRANT SELECT, UPDATE ON operator_report TO %I', worker);

    -- alerts: judged by every flush, through both doors, and by the worker's timers
    EXECUTE format('GRANT SELECT ON alert_rule, alert_watch, alert_mark TO %s', everyone);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON alert TO %s', everyone);
    EXECUTE format('GRANT INSERT, UPDATE ON alert_mark TO %I, %I', ingest, api);
    EXECUTE format('GRANT UPDATE ON alert_watch TO %s', everyone);
    EXECUTE format('GRANT INSERT ON alert_watch TO %I', api);
    EXECUTE format('GRANT INSERT, UPDATE, DELETE ON alert_rule TO %I', api);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON alert_timer TO %I', worker);
    -- webhooks: the API writes what signs and never reads it
    EXECUTE format('GRANT INSERT, DELETE ON channel TO %I', api);
    EXECUTE format('GRANT SELECT (id, account_id, name, url, failures, paused_at, created_at) ON channel TO %I', api);
    EXECUTE format('GRANT UPDATE ON channel TO %I', api);
    EXECUTE format('GRANT SELECT, UPDATE ON channel TO %I', worker);
    EXECUTE format('GRANT UPDATE ON alert_rule TO %I', worker); -- a smaller plan pauses some
    EXECUTE format('GRANT SELECT, INSERT ON delivery TO %I, %I', api, worker);
    EXECUTE format('GRANT UPDATE, DELETE ON delivery TO %I', worker);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON mail_day TO %I', worker);
    -- live streams: the API keeps them, whoever flushes looks whether anybody watches
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON stream TO %I', api);
    EXECUTE format('GRANT SELECT ON stream, live_channel TO %s', everyone);
    EXECUTE format('GRANT DELETE ON stream TO %I', worker);

    EXECUTE format('GRANT EXECUTE ON FUNCTION apply_retention(text), settle_retention(text) TO %I', worker);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON move TO %I', worker);
    -- deletions: asked for and undone in the API, carried out by the worker
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON erasure TO %I, %I', api, worker);
    EXECUTE format('GRANT UPDATE (changed_at) ON alert_rule TO %I', worker);
    EXECUTE format('GRANT DELETE ON api_key, job_error, export TO %I', worker);
    -- exports: asked for in the API, written and ended by the worker, which reads all but secrets
    EXECUTE format('GRANT SELECT, INSERT ON export TO %I', api);
    EXECUTE format('GRANT SELECT, UPDATE, DELETE ON export TO %I', worker);
    EXECUTE format('GRANT SELECT (id, account_id, name, hint, scopes, device_ids, created_at, expires_at, last_used_at, last_used_ip) ON api_key TO %I', worker);
    EXECUTE format('GRANT UPDATE (last_used_ip) ON api_key TO %I', worker);
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON privacy_check TO %I', worker);
    EXECUTE format('GRANT SELECT ON privacy_check TO %I', api);

    -- what people keep of the pages
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON view TO %I', api);
    EXECUTE format('GRANT SELECT, DELETE ON view TO %I', worker);

    EXECUTE format('GRANT EXECUTE ON FUNCTION apply_retention(text) TO %I', worker);

    -- our functions are for our roles; one that is closed to PUBLIC already is granted by name
    FOR part IN
        SELECT p.oid::regprocedure AS routine FROM pg_proc AS p
        CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS acl
        WHERE p.pronamespace = 'public'::regnamespace AND p.proowner = current_user::regrole
          AND acl.grantee = 0
    LOOP
        EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', part.routine);
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', part.routine, everyone);
    END LOOP;
    EXECUTE format('GRANT SELECT, DELETE ON sql_login TO %I, %I', api, worker);
    EXECUTE format('GRANT SELECT ON sql_watch TO %I, %I', api, worker);

    -- jobs are written in the caller's transaction and worked by the worker
    IF to_regclass('procrastinate_jobs') IS NOT NULL THEN
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON procrastinate_jobs, procrastinate_events,'
            ' procrastinate_periodic_defers, procrastinate_workers TO %I, %I', api, worker);
    END IF;
    EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO %s', everyone);
END $$;
