-- Constraints of the processors' tables.

-- name: deferred_constraints
-- Those that would only be checked at COMMIT, as SET CONSTRAINTS names them. A name that a constraint shares with one that
-- cannot be deferred is left out: SET CONSTRAINTS would refuse it.
SELECT format('%I.%I', n.nspname, c.conname) AS name
  FROM pg_catalog.pg_constraint c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
 GROUP BY n.nspname, c.conname
HAVING bool_and(c.condeferrable) AND bool_or(c.condeferred)
 ORDER BY 1;
