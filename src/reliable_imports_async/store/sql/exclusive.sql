-- Batch types of which only one batch may run at a time. The row of a type names that batch; these statements lock it.

-- name: lock_turn
-- Locks the row of a type. If there is none, it is inserted for the batch that is already running, or else for batch $2.
INSERT INTO reliable_imports.import_only_one AS o (batch_type, batch_id)
VALUES ($1, coalesce((SELECT b.id
                        FROM reliable_imports.import_batches b
                       WHERE b.batch_type = $1 AND b.status = 'processing'
                       ORDER BY b.id
                       LIMIT 1), $2))
ON CONFLICT (batch_type) DO UPDATE SET vacant_since = CASE WHEN o.batch_id <> $2 THEN o.vacant_since END
RETURNING o.batch_id;

-- name: take_turn
-- Gives the row to batch $2 if the batch of the row has ended, or none of its items has run for $3 seconds. Returns the batch
-- of the row. A paused, cancelled or failed batch may still have running items, or be resumed before its workers notice.
WITH holder AS MATERIALIZED (
    SELECT o.batch_id, o.vacant_since,
           b.id IS NULL OR (b.finished_at IS NOT NULL AND b.status <> 'cancelled') AS ended,
           coalesce(b.status = 'processing', false)
           OR EXISTS (SELECT FROM reliable_imports.import_batch_ranges r
                       WHERE r.batch_id = o.batch_id AND r.state = 'leased' AND r.lease_until >= clock_timestamp()) AS running
      FROM reliable_imports.import_only_one o
      LEFT JOIN reliable_imports.import_batches b ON b.id = o.batch_id
     WHERE o.batch_type = $1),
decided AS MATERIALIZED (
    SELECT h.running, h.vacant_since, h.batch_id,
           h.batch_id = $2 OR h.ended
           OR (NOT h.running
               AND coalesce(h.vacant_since <= clock_timestamp() - make_interval(secs => $3), false)) AS ours
      FROM holder h)
UPDATE reliable_imports.import_only_one o
   SET batch_id = CASE WHEN d.ours THEN $2 ELSE d.batch_id END,
       vacant_since = CASE WHEN NOT (d.ours OR d.running) THEN coalesce(d.vacant_since, clock_timestamp()) END
  FROM decided d
 WHERE o.batch_type = $1
RETURNING o.batch_id;

-- name: holder
-- The running batch of a type, if there is one, and whether it is abandoned: no worker holds a lease, although one could.
SELECT b.id AS batch_id,
       NOT EXISTS (SELECT FROM reliable_imports.import_batch_ranges r
                    WHERE r.batch_id = b.id AND r.state = 'leased' AND r.lease_until >= clock_timestamp())
       AND (EXISTS (SELECT FROM reliable_imports.import_batch_ranges r
                     WHERE r.batch_id = b.id AND r.state <> 'done'
                       AND (r.not_before IS NULL OR r.not_before <= clock_timestamp()))
            OR NOT EXISTS (SELECT FROM reliable_imports.import_batch_ranges r
                            WHERE r.batch_id = b.id AND r.state <> 'done')) AS abandoned
  FROM reliable_imports.import_only_one o
  JOIN reliable_imports.import_batches b ON b.id = o.batch_id
 WHERE o.batch_type = $1 AND b.status = 'processing';
