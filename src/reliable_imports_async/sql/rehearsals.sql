-- A dry run: what it asks of the database beside the processor's own statements.

-- name: user_tables
-- The tables that a processor may write to, and whether a constraint anywhere is checked at COMMIT only.
SELECT c.oid::bigint AS oid, format('%I.%I', n.nspname, c.relname) AS name,
       EXISTS (SELECT FROM pg_trigger t WHERE t.tgdeferrable) AS deferrable
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'reliable_imports') AND n.nspname !~ '^pg_toast'
 ORDER BY name;

-- name: rows_changed
-- PostgreSQL's own counts of rows that this backend has inserted, updated and deleted, by table. They hold what was rolled
-- back, and what earlier transactions did and is not reported yet: only differences within a transaction mean anything.
SELECT o.oid::bigint AS oid, pg_stat_get_xact_tuples_inserted(o.oid::oid) AS inserted,
       pg_stat_get_xact_tuples_updated(o.oid::oid) AS updated, pg_stat_get_xact_tuples_deleted(o.oid::oid) AS deleted
  FROM unnest($1::bigint[]) AS o(oid)
 WHERE pg_stat_get_xact_tuples_inserted(o.oid::oid) + pg_stat_get_xact_tuples_updated(o.oid::oid)
       + pg_stat_get_xact_tuples_deleted(o.oid::oid) > 0;
