-- Items, in the order in which an item meets the statements. The fence is the same everywhere: an item is settled only
-- while it is pending, by the try that read it, and unless a reprocessing has taken it over. Log lines come as JSON arrays
-- of level, message, details and time.

-- name: read_pending
-- The next items of a range that are due.
SELECT item_number, attempts, source_data::text AS source_data, source_line, item_key, root_item_number
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND item_number BETWEEN $2 AND $3 AND status = 'pending' AND reprocessed_by IS NULL
   AND (due_at IS NULL OR due_at <= clock_timestamp())
 ORDER BY item_number
 LIMIT $4;

-- name: read_undue
-- The items of a range that are to be tried again, but not yet: later ones of their keys wait for them.
SELECT item_number, attempts, source_data::text AS source_data, source_line, item_key, root_item_number
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND item_number BETWEEN $2 AND $3 AND status = 'pending' AND reprocessed_by IS NULL
   AND due_at > clock_timestamp()
 ORDER BY item_number;

-- name: settle
-- The last statement of an item's transaction.
UPDATE reliable_imports.import_batch_items
   SET status = $4, attempts = attempts + 1, target_table = $5, target_id = $6, processed_data = $7::text::jsonb,
       skip_reason = $8, started_at = now(), finished_at = clock_timestamp()
 WHERE batch_id = $1 AND item_number = $2 AND status = 'pending' AND attempts = $3 AND reprocessed_by IS NULL;

-- name: settle_with_logs
-- The same for an item that wrote log lines.
WITH settled AS (
    UPDATE reliable_imports.import_batch_items
       SET status = $4, attempts = attempts + 1, target_table = $5, target_id = $6, processed_data = $7::text::jsonb,
           skip_reason = $8, started_at = now(), finished_at = clock_timestamp()
     WHERE batch_id = $1 AND item_number = $2 AND status = 'pending' AND attempts = $3 AND reprocessed_by IS NULL
    RETURNING batch_id, item_number),
logged AS (
    INSERT INTO reliable_imports.import_logs (batch_id, item_number, level, message, details, logged_at)
    SELECT s.batch_id, s.item_number, l.v ->> 0, l.v ->> 1, (l.v ->> 2)::jsonb, (l.v ->> 3)::timestamptz
      FROM settled s, json_array_elements($9::text::json) WITH ORDINALITY AS l(v, n)
     ORDER BY l.n)
SELECT count(*) FROM settled;

-- name: settle_at_once
-- The same without log lines, sent in one message with COMMIT: it raises RI001 where the fence does not hold.
SELECT reliable_imports.settle_item($1, $2, $3, convert_from(decode($4, 'hex'), 'UTF8')::jsonb);

-- name: settle_failed
-- After the rollback: the failure and the log lines, in one statement of its own.
WITH settled AS (
    UPDATE reliable_imports.import_batch_items
       SET status = 'failed', attempts = attempts + 1,
           error_kind = $4, error_type = $5, error_message = $6, error_group = $7, error_sqlstate = $8,
           error_constraint = $9, error_table = $10, error_column = $11, error_detail = $12, error_hint = $13,
           error_traceback = $14, error_fields = $15::text::jsonb,
           started_at = clock_timestamp() - make_interval(secs => $16), finished_at = clock_timestamp()
     WHERE batch_id = $1 AND item_number = $2 AND status = 'pending' AND attempts = $3 AND reprocessed_by IS NULL
    RETURNING batch_id, item_number),
logged AS (
    INSERT INTO reliable_imports.import_logs (batch_id, item_number, level, message, details, logged_at)
    SELECT s.batch_id, s.item_number, l.v ->> 0, l.v ->> 1, (l.v ->> 2)::jsonb, (l.v ->> 3)::timestamptz
      FROM settled s, json_array_elements($17::text::json) WITH ORDINALITY AS l(v, n)
     ORDER BY l.n)
SELECT count(*) FROM settled;

-- name: postpone
-- A stored retry: still pending, one try more, not before its due time.
WITH postponed AS (
    UPDATE reliable_imports.import_batch_items
       SET attempts = attempts + 1, due_at = clock_timestamp() + make_interval(secs => $4)
     WHERE batch_id = $1 AND item_number = $2 AND status = 'pending' AND attempts = $3 AND reprocessed_by IS NULL
    RETURNING batch_id, item_number),
logged AS (
    INSERT INTO reliable_imports.import_logs (batch_id, item_number, level, message, details, logged_at)
    SELECT s.batch_id, s.item_number, l.v ->> 0, l.v ->> 1, (l.v ->> 2)::jsonb, (l.v ->> 3)::timestamptz
      FROM postponed s, json_array_elements($5::text::json) WITH ORDINALITY AS l(v, n)
     ORDER BY l.n)
SELECT count(*) FROM postponed;

-- name: ask_item
-- The oracle for an outcome in doubt: the row lock waits until the old backend's transaction is over.
SELECT status, attempts, error_kind, error_type, error_message, error_group, reprocessed_by
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND item_number = $2
   FOR UPDATE;

-- name: get_item
-- One item with everything that is stored about it.
SELECT i.batch_id, i.item_number, i.status, i.attempts, i.source_data::text AS source_data, i.raw, i.source_line,
       i.item_key, i.root_item_number, i.due_at, i.target_table, i.target_id, i.processed_data::text AS processed_data,
       i.skip_reason, i.error_kind, i.error_type, i.error_message, i.error_sqlstate, i.error_constraint, i.error_table,
       i.error_column, i.error_detail, i.error_hint, i.error_traceback, i.error_fields::text AS error_fields,
       i.error_group, i.reprocessed_by, i.started_at, i.finished_at, b.root_batch_id
  FROM reliable_imports.import_batch_items i
  JOIN reliable_imports.import_batches b ON b.id = i.batch_id
 WHERE i.batch_id = $1 AND i.item_number = $2;

-- name: list_items
-- A page of items in the order of their numbers; $4 is the last number of the page before.
SELECT i.batch_id, i.item_number, i.status, i.attempts, i.source_data::text AS source_data, i.raw, i.source_line,
       i.item_key, i.root_item_number, i.due_at, i.target_table, i.target_id, i.processed_data::text AS processed_data,
       i.skip_reason, i.error_kind, i.error_type, i.error_message, i.error_sqlstate, i.error_constraint, i.error_table,
       i.error_column, i.error_detail, i.error_hint, i.error_traceback, i.error_fields::text AS error_fields,
       i.error_group, i.reprocessed_by, i.started_at, i.finished_at, b.root_batch_id
  FROM reliable_imports.import_batch_items i
  JOIN reliable_imports.import_batches b ON b.id = i.batch_id
 WHERE i.batch_id = $1 AND i.item_number > $4
   AND ($2::text IS NULL OR i.status = $2)
   AND ($3::text IS NULL OR i.error_group = $3)
 ORDER BY i.item_number
 LIMIT $5;

-- name: list_failed_items
-- The same for failed items, through the index of the failure groups.
SELECT i.batch_id, i.item_number, i.status, i.attempts, i.source_data::text AS source_data, i.raw, i.source_line,
       i.item_key, i.root_item_number, i.due_at, i.target_table, i.target_id, i.processed_data::text AS processed_data,
       i.skip_reason, i.error_kind, i.error_type, i.error_message, i.error_sqlstate, i.error_constraint, i.error_table,
       i.error_column, i.error_detail, i.error_hint, i.error_traceback, i.error_fields::text AS error_fields,
       i.error_group, i.reprocessed_by, i.started_at, i.finished_at, b.root_batch_id
  FROM reliable_imports.import_batch_items i
  JOIN reliable_imports.import_batches b ON b.id = i.batch_id
 WHERE i.batch_id = $1 AND i.error_group = $2 AND i.item_number > $3 AND i.status = 'failed'
 ORDER BY i.item_number
 LIMIT $4;

-- name: list_items_by_status
-- The same for one status: only those ranges are read that have such items, or whose counts may be out of date.
SELECT i.*
  FROM (SELECT r.first_item, r.last_item
          FROM reliable_imports.import_batch_ranges r
         WHERE r.batch_id = $1 AND r.last_item > $3
           AND (r.state = 'leased'
                OR CASE $2::text
                        WHEN 'completed' THEN r.completed
                        WHEN 'skipped' THEN r.skipped
                        WHEN 'failed' THEN r.failed
                        ELSE r.last_item - r.first_item + 1 - r.completed - r.skipped - r.failed
                   END > 0)
         ORDER BY r.first_item) w
 CROSS JOIN LATERAL (
       SELECT i.batch_id, i.item_number, i.status, i.attempts, i.source_data::text AS source_data, i.raw, i.source_line,
              i.item_key, i.root_item_number, i.due_at, i.target_table, i.target_id, i.processed_data::text AS processed_data,
              i.skip_reason, i.error_kind, i.error_type, i.error_message, i.error_sqlstate, i.error_constraint, i.error_table,
              i.error_column, i.error_detail, i.error_hint, i.error_traceback, i.error_fields::text AS error_fields,
              i.error_group, i.reprocessed_by, i.started_at, i.finished_at, b.root_batch_id
         FROM reliable_imports.import_batch_items i
         JOIN reliable_imports.import_batches b ON b.id = i.batch_id
        WHERE i.batch_id = $1 AND i.item_number BETWEEN greatest(w.first_item, $3 + 1) AND w.last_item
          AND i.status = $2::text
        ORDER BY i.item_number
        LIMIT $4) i
 ORDER BY w.first_item, i.item_number
 LIMIT $4;

-- name: delete_items
-- A chunk of some batches' items.
DELETE FROM reliable_imports.import_batch_items
 WHERE ctid = ANY (ARRAY(SELECT ctid FROM reliable_imports.import_batch_items
                          WHERE batch_id = ANY ($1::uuid[]) LIMIT $2));
