-- Where the tables of PgQueuer are.

-- name: pgqueuer_schema
-- The schema of its table $1: the one that an unqualified name finds, or else any; none: it is not installed.
SELECT n.nspname
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = $1 AND c.relkind = 'r'
 ORDER BY pg_catalog.pg_table_is_visible(c.oid) DESC, n.nspname = 'public' DESC, n.nspname
 LIMIT 1;

-- name: current_schema
-- Where a table would be created; null: nowhere.
SELECT pg_catalog.current_schema();
