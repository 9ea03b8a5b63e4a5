-- name: unscoped_catalog_relations
-- Every table and view of this database that is Paqett's own, with its columns; no rows of anybody.
SELECT CASE n.nspname WHEN 'public' THEN c.relname::text ELSE n.nspname || '.' || c.relname END AS name,
       c.relkind IN ('v', 'm') AS is_view, array_agg(a.attname::text ORDER BY a.attnum) AS columns
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname <> ALL (%(others)s::text[])
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_toast%%'
  AND n.nspname NOT LIKE 'pg\_temp%%'
  -- what an extension brought, such as a view of statistics
  AND NOT EXISTS (SELECT FROM pg_depend AS d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
GROUP BY n.nspname, c.relname, c.relkind ORDER BY 1;

-- name: unscoped_catalog_schemas
-- Schemas that hold a table or a view; of nobody in particular.
SELECT DISTINCT n.nspname::text AS name
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_toast%%'
  AND n.nspname NOT LIKE 'pg\_temp%%';

-- name: unscoped_catalog_cascades
-- Tables whose rows go with the account's row, by a reference of account_id; no rows of anybody.
SELECT c.conrelid::regclass::text AS name
FROM pg_constraint AS c
WHERE c.contype = 'f' AND c.confrelid = 'account'::regclass AND c.confdeltype = 'c';
