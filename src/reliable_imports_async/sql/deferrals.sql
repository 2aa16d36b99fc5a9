-- Deferral: what waits for other records of its batch, and the next pass over it.

-- name: reopen_deferred
-- The next pass: when no range of the batch is ready or leased, those that are deferred are ready again. $2 is the pass
-- that the asker knows. Only a reopening makes deferred ranges ready, and it counts the passes; so of two who ask, the
-- second finds another number under the batch's row lock, and changes nothing. The pass after one in which nothing was
-- settled is the final one.
WITH ranges AS (
    SELECT coalesce(sum(r.completed + r.skipped + r.failed), 0)::integer AS settled,
           coalesce(sum(cardinality(r.deferred)), 0)::integer AS deferred
      FROM reliable_imports.import_batch_ranges r
     WHERE r.batch_id = $1
    HAVING bool_and(r.state IN ('deferred', 'done')) AND bool_or(r.state = 'deferred')),
turned AS (
    UPDATE reliable_imports.import_batches b
       SET pass_number = b.pass_number + 1, final_pass = n.settled <= b.pass_settled, pass_settled = n.settled
      FROM ranges n
     WHERE b.id = $1 AND b.pass_number = $2 AND b.status = 'processing'
    RETURNING b.pass_number, b.final_pass, n.deferred),
reopened AS (
    UPDATE reliable_imports.import_batch_ranges r
       SET state = 'ready', deferred = '{}', final_pass = t.final_pass
      FROM turned t
     WHERE r.batch_id = $1 AND r.state = 'deferred')
SELECT t.pass_number, t.deferred, t.final_pass FROM turned t;
