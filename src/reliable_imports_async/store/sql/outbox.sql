-- The outbox: hooks to run outside of any transaction, and the processes that run them.

-- name: add_hooks
-- Adds hooks of batch $1, in the transaction that they are about. Process $4 claims the hooks that it can run, for $5
-- seconds.
INSERT INTO reliable_imports.import_outbox (batch_id, hook, claimed_by, claimed_until, claims, details)
SELECT $1, u.hook, CASE WHEN u.known THEN $4::uuid END,
       CASE WHEN u.known THEN clock_timestamp() + make_interval(secs => $5) END, u.known::integer, $6::text::jsonb
  FROM unnest($2::text[], $3::boolean[]) AS u(hook, known)
    ON CONFLICT DO NOTHING;

-- name: hooks_of_batch
-- The hooks of a batch that have not run: whether process $2 may run each now, and in how many seconds any process may. The
-- more processes have died in a hook, the longer the next one waits: $3 seconds after the first.
SELECT o.hook, coalesce(o.claimed_by = $2 OR w.seconds < 0, true) AS due, coalesce(w.seconds, 0)::float8 AS seconds
  FROM reliable_imports.import_outbox o
 CROSS JOIN LATERAL (
       SELECT extract(epoch FROM o.claimed_until - clock_timestamp())
              + least(600, $3::float8 * (2 ^ least(greatest(o.claims - 1, 0), 10) - 1)) AS seconds) w
 WHERE o.batch_id = $1;

-- name: due_hooks
-- The hooks among $1, of the batch types $2, that any process may run now, oldest batch first.
SELECT o.batch_id, o.hook
  FROM reliable_imports.import_outbox o
  JOIN reliable_imports.import_batches b ON b.id = o.batch_id
 WHERE EXISTS (SELECT FROM unnest($1::text[], $2::text[]) AS k(hook, batch_type)
                WHERE k.hook = o.hook AND k.batch_type = b.batch_type)
   AND (o.claimed_until IS NULL
        OR extract(epoch FROM o.claimed_until - clock_timestamp())
           + least(600, $3::float8 * (2 ^ least(greatest(o.claims - 1, 0), 10) - 1)) < 0)
 ORDER BY o.batch_id
 LIMIT $4;

-- name: claim_hook
-- Process $3 claims a hook for the next $4 seconds. Returns no row if it has run, or another process runs it.
UPDATE reliable_imports.import_outbox o
   SET claimed_by = $3, claimed_until = clock_timestamp() + make_interval(secs => $4),
       claims = o.claims + (o.claimed_by IS DISTINCT FROM $3)::integer
 WHERE o.batch_id = $1 AND o.hook = $2
   AND (o.claimed_until IS NULL OR o.claimed_by = $3
        OR extract(epoch FROM o.claimed_until - clock_timestamp())
           + least(600, $4::float8 * (2 ^ least(greatest(o.claims - 1, 0), 10) - 1)) < 0)
RETURNING coalesce(o.details::text, '{}') AS details;

-- name: renew_claim
-- The process still runs the hook.
UPDATE reliable_imports.import_outbox
   SET claimed_until = clock_timestamp() + make_interval(secs => $4)
 WHERE batch_id = $1 AND hook = $2 AND claimed_by = $3;

-- name: release_claim
-- The process was stopped: another one may run the hook at once.
UPDATE reliable_imports.import_outbox
   SET claimed_by = NULL, claimed_until = NULL, claims = greatest(claims - 1, 0)
 WHERE batch_id = $1 AND hook = $2 AND claimed_by = $3;

-- name: hook_ran
-- The hook has run, successfully or not.
WITH ran AS (
    DELETE FROM reliable_imports.import_outbox WHERE batch_id = $1 AND hook = $2 RETURNING batch_id, hook)
UPDATE reliable_imports.import_batches b
   SET notified_at = CASE WHEN ran.hook = 'processor.after_batch_complete' THEN clock_timestamp() ELSE b.notified_at END,
       announced_at = CASE WHEN ran.hook = 'endpoint.after_batch_complete' THEN clock_timestamp() ELSE b.announced_at END
  FROM ran
 WHERE b.id = ran.batch_id AND ran.hook <> 'endpoint.after_create_batch';

-- name: is_held
-- Whether after_create_batch has not run yet: no item runs before it.
SELECT EXISTS (SELECT FROM reliable_imports.import_outbox
                WHERE batch_id = $1 AND hook = 'endpoint.after_create_batch');

-- name: delete_hooks
-- The hooks of some batches.
DELETE FROM reliable_imports.import_outbox WHERE batch_id = ANY ($1::uuid[]);
