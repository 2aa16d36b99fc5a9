-- What is asked of a session, and what a session is given back as.

-- name: reset_session
-- Everything that DISCARD ALL does, but for the statements that the driver has prepared and remembers.
DO $$
DECLARE
    prepared text;
BEGIN
    RESET SESSION AUTHORIZATION;
    RESET ALL;
    EXECUTE 'CLOSE ALL';
    UNLISTEN *;
    PERFORM pg_catalog.pg_advisory_unlock_all();
    DISCARD TEMP;
    DISCARD SEQUENCES;
    FOR prepared IN SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql LOOP
        EXECUTE pg_catalog.format('DEALLOCATE %I', prepared);
    END LOOP;
END
$$;

-- name: reset_settings
-- Only the settings and the role, inside a transaction that goes on.
DO $$
BEGIN
    RESET SESSION AUTHORIZATION;
    RESET ALL;
END
$$;

-- name: defaults
-- How transactions begin here unless they say so themselves; the search_path where something in it comes before PostgreSQL's
-- own functions, such as a clock for tests; and the server's process id, which a pooler hides.
SELECT pg_catalog.current_setting('default_transaction_isolation') AS isolation,
       pg_catalog.current_setting('default_transaction_deferrable') AS deferrable,
       CASE WHEN pg_catalog.current_setting('search_path') ~ ',\s*"?pg_catalog"?\s*(,|$)'
            THEN pg_catalog.current_setting('search_path') END AS search_path,
       pg_catalog.pg_backend_pid();

-- name: set_defaults
-- The same, to be changed for this session.
SELECT pg_catalog.set_config('default_transaction_isolation', $1, false),
       pg_catalog.set_config('default_transaction_deferrable', $2, false),
       pg_catalog.set_config('search_path', coalesce($3, pg_catalog.current_setting('search_path')), false);

-- name: ordinary_defaults
-- What the library's own statements need: each sees what has committed before it; functions are PostgreSQL's. A read-only default stays:
-- somebody wants nothing to be written.
SELECT pg_catalog.set_config('default_transaction_isolation', 'read committed', false),
       pg_catalog.set_config('default_transaction_deferrable', 'off', false),
       pg_catalog.set_config('search_path', pg_catalog.regexp_replace(
           pg_catalog.current_setting('search_path'), ',\s*"?pg_catalog"?\s*(?=,|$)', ''), false);

-- name: limits
-- The settings that `set_limits` changes, as they are now.
SELECT ARRAY[pg_catalog.current_setting('statement_timeout'), pg_catalog.current_setting('lock_timeout'),
             pg_catalog.current_setting('idle_in_transaction_session_timeout'),
             pg_catalog.current_setting('client_connection_check_interval'),
             pg_catalog.current_setting('tcp_keepalives_idle'), pg_catalog.current_setting('tcp_keepalives_interval'),
             pg_catalog.current_setting('tcp_keepalives_count'), pg_catalog.current_setting('deadlock_timeout')];

-- name: set_limits
-- When the server ends by itself what a frozen or killed worker, or a machine that vanished, holds; and how soon it looks for a
-- deadlock, unless that is null. For the transaction if $9.
SELECT pg_catalog.set_config('statement_timeout', $1, $9), pg_catalog.set_config('lock_timeout', $2, $9),
       pg_catalog.set_config('idle_in_transaction_session_timeout', $3, $9),
       pg_catalog.set_config('client_connection_check_interval', $4, $9),
       pg_catalog.set_config('tcp_keepalives_idle', $5, $9), pg_catalog.set_config('tcp_keepalives_interval', $6, $9),
       pg_catalog.set_config('tcp_keepalives_count', $7, $9),
       CASE WHEN $8::pg_catalog.text IS NOT NULL THEN pg_catalog.set_config('deadlock_timeout', $8, $9) END;

-- name: deadlock_timeout
-- Whether the server looks for deadlocks late, and does not log each longer wait for a lock as well.
SELECT setting::integer > $1 AND NOT pg_catalog.current_setting('log_lock_waits')::pg_catalog.bool
  FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout';

-- name: may_set_deadlock_timeout
-- Since PostgreSQL 15 this can be granted.
SELECT pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET');

-- name: is_superuser
-- Before PostgreSQL 15, only superusers may set deadlock_timeout.
SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user;

-- name: allowed_connections
-- How many connections roles may have that are not superusers.
SELECT sum(CASE WHEN name = 'max_connections' THEN setting::integer ELSE -setting::integer END)::integer
  FROM pg_catalog.pg_settings
 WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections');
