-- name: unscoped_prepare_session
-- Once for a connection, whoever's readings it will carry: columnstore may be unpacked for as many
-- late, moved or erased readings as there are, and before 2.28.3, where deleting whole batches could
-- take too many, it does not delete that way.
SELECT set_config(setting.name, wanted.value, false)
FROM (VALUES
    ('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true),
    ('timescaledb.enable_compressed_direct_batch_delete', 'off',
     (SELECT string_to_array(substring(extversion FROM '^[0-9.]+[0-9]'), '.')::int[] < ARRAY[2, 28, 3]
      FROM pg_extension WHERE extname = 'timescaledb'))
) AS wanted (name, value, holds)
JOIN pg_settings AS setting USING (name)
WHERE wanted.holds;
