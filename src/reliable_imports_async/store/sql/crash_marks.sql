-- Crash marks, in the order in which they are used for an item of a quarantined range.

-- name: mark_item
-- The number of dead and of living workers other than this one with a mark on an item. If they are fewer than $5, this worker
-- marks the item instead of the one before, and commits that before the item starts. A mark has to outlive its worker, not
-- the server, so the COMMIT does not wait for the disk.
WITH marks AS (
    SELECT count(*) FILTER (WHERE m.seen_at < clock_timestamp() - make_interval(secs => $4)) AS dead,
           count(*) FILTER (WHERE m.seen_at >= clock_timestamp() - make_interval(secs => $4)) AS living
      FROM reliable_imports.import_crash_marks m
     WHERE m.batch_id = $1 AND m.item_number = $2 AND m.worker_id <> $3),
marked AS (
    INSERT INTO reliable_imports.import_crash_marks (batch_id, item_number, worker_id)
    SELECT $1, $2, $3 FROM marks WHERE marks.dead + marks.living < $5
    ON CONFLICT (batch_id, item_number, worker_id) DO UPDATE SET seen_at = clock_timestamp()),
before AS (
    DELETE FROM reliable_imports.import_crash_marks
     WHERE batch_id = $1 AND worker_id = $3 AND item_number <> $2)
SELECT marks.dead, marks.living, set_config('synchronous_commit', 'off', true) FROM marks;

-- name: keep_marks
-- The worker is alive.
UPDATE reliable_imports.import_crash_marks SET seen_at = clock_timestamp() WHERE batch_id = $1 AND worker_id = $2;

-- name: unmark_batch
-- The worker is alive, and runs no marked item of the batch.
DELETE FROM reliable_imports.import_crash_marks WHERE batch_id = $1 AND worker_id = $2;

-- name: unmark_item
-- The item is settled: its marks are not needed any more.
DELETE FROM reliable_imports.import_crash_marks WHERE batch_id = $1 AND item_number = $2;

-- name: delete_crash_marks
-- The marks of some batches.
DELETE FROM reliable_imports.import_crash_marks WHERE batch_id = ANY ($1::uuid[]);
