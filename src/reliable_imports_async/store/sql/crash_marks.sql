-- Crash marks, in the order in which a suspect item meets the statements.

-- name: mark_item
-- How many dead and how many living workers other than the asking one have left a mark on an item. Where fewer than $5
-- have, it leaves its own, committed before the item begins, in place of the one before. A mark has to outlive its
-- worker, not the server: nobody waits for the disk.
WITH others AS (
    SELECT count(*) FILTER (WHERE m.seen_at < clock_timestamp() - make_interval(secs => $4)) AS dead,
           count(*) FILTER (WHERE m.seen_at >= clock_timestamp() - make_interval(secs => $4)) AS living
      FROM reliable_imports.import_crash_marks m
     WHERE m.batch_id = $1 AND m.item_number = $2 AND m.worker_id <> $3),
marked AS (
    INSERT INTO reliable_imports.import_crash_marks (batch_id, item_number, worker_id)
    SELECT $1, $2, $3 FROM others WHERE others.dead + others.living < $5
    ON CONFLICT (batch_id, item_number, worker_id) DO UPDATE SET seen_at = clock_timestamp()),
before AS (
    DELETE FROM reliable_imports.import_crash_marks
     WHERE batch_id = $1 AND worker_id = $3 AND item_number <> $2)
SELECT others.dead, others.living, set_config('synchronous_commit', 'off', true) FROM others;

-- name: keep_marks
-- The worker lives.
UPDATE reliable_imports.import_crash_marks SET seen_at = clock_timestamp() WHERE batch_id = $1 AND worker_id = $2;

-- name: unmark_batch
-- No item has killed the worker.
DELETE FROM reliable_imports.import_crash_marks WHERE batch_id = $1 AND worker_id = $2;

-- name: unmark_item
-- It is settled: nobody's marks matter any more.
DELETE FROM reliable_imports.import_crash_marks WHERE batch_id = $1 AND item_number = $2;

-- name: delete_crash_marks
-- Everything of some batches.
DELETE FROM reliable_imports.import_crash_marks WHERE batch_id = ANY ($1::uuid[]);
