-- Constraints of the processors' tables.

-- name: deferred_constraints
-- Those that would only be checked at COMMIT and that the role's statements can touch, as SET CONSTRAINTS names them. It needs
-- the right to use their schema. A name that a constraint shares with one that cannot be deferred is left out: SET CONSTRAINTS
-- would refuse it. What is left out is still checked at COMMIT.
SELECT pg_catalog.format('%I.%I', n.nspname, c.conname) AS name
  FROM pg_catalog.pg_constraint c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
 WHERE pg_catalog.has_schema_privilege(n.oid, 'USAGE')
 GROUP BY n.nspname, c.conname
HAVING bool_and(c.condeferrable) AND bool_or(c.condeferred)
   AND bool_or(pg_catalog.has_any_column_privilege(nullif(c.conrelid, 0), 'INSERT, UPDATE')
               OR pg_catalog.has_table_privilege(nullif(c.conrelid, 0), 'DELETE')
               OR pg_catalog.has_any_column_privilege(nullif(c.confrelid, 0), 'UPDATE')
               OR pg_catalog.has_table_privilege(nullif(c.confrelid, 0), 'DELETE'))
 ORDER BY 1;
