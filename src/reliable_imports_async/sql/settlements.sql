-- Settling the items of an interval, all in one statement. The fence is that of a single item; whoever sends this compares
-- the count with the number of items, and rolls everything back when they differ. The bounds make any plan narrow.

-- name: settle_completed
-- The plain case: every item completed, and nothing more is to be said about any.
UPDATE reliable_imports.import_batch_items i
   SET status = 'completed', attempts = i.attempts + 1, started_at = now(), finished_at = clock_timestamp()
  FROM unnest($4::integer[], $5::integer[]) AS u(item_number, attempts)
 WHERE i.batch_id = $1 AND i.item_number BETWEEN $2 AND $3 AND i.item_number = u.item_number
   AND i.status = 'pending' AND i.attempts = u.attempts AND i.reprocessed_by IS NULL;

-- name: settle_results
-- The same for items that completed with results, or were skipped.
UPDATE reliable_imports.import_batch_items i
   SET status = u.status, attempts = i.attempts + 1, target_table = u.target_table, target_id = u.target_id,
       processed_data = u.processed_data::jsonb, skip_reason = u.skip_reason,
       started_at = now(), finished_at = clock_timestamp()
  FROM unnest($4::integer[], $5::integer[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
       AS u(item_number, attempts, status, target_table, target_id, processed_data, skip_reason)
 WHERE i.batch_id = $1 AND i.item_number BETWEEN $2 AND $3 AND i.item_number = u.item_number
   AND i.status = 'pending' AND i.attempts = u.attempts AND i.reprocessed_by IS NULL;

-- name: settle_mixed
-- The same when items failed, are to be tried again, or wrote log lines.
WITH settled AS (
    UPDATE reliable_imports.import_batch_items i
       SET status = u.status, attempts = i.attempts + 1, target_table = u.target_table, target_id = u.target_id,
           processed_data = u.processed_data::jsonb, skip_reason = u.skip_reason,
           started_at = now(), finished_at = clock_timestamp()
      FROM unnest($4::integer[], $5::integer[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
           AS u(item_number, attempts, status, target_table, target_id, processed_data, skip_reason)
     WHERE i.batch_id = $1 AND i.item_number BETWEEN $2 AND $3 AND i.item_number = u.item_number
       AND i.status = 'pending' AND i.attempts = u.attempts AND i.reprocessed_by IS NULL
    RETURNING i.item_number),
failed AS (
    UPDATE reliable_imports.import_batch_items i
       SET status = 'failed', attempts = i.attempts + 1,
           error_kind = u.kind, error_type = u.type, error_message = u.message, error_group = u.error_group,
           error_sqlstate = u.sqlstate, error_constraint = u.constraint_name, error_table = u.table_name,
           error_column = u.column_name, error_detail = u.detail, error_hint = u.hint,
           error_traceback = u.traceback, error_fields = u.fields::jsonb,
           started_at = clock_timestamp() - make_interval(secs => u.seconds), finished_at = clock_timestamp()
      FROM unnest($11::integer[], $12::integer[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[],
                  $18::text[], $19::text[], $20::text[], $21::text[], $22::text[], $23::text[], $24::text[],
                  $25::float8[])
           AS u(item_number, attempts, kind, type, message, error_group, sqlstate, constraint_name, table_name,
                column_name, detail, hint, traceback, fields, seconds)
     WHERE i.batch_id = $1 AND i.item_number BETWEEN $2 AND $3 AND i.item_number = u.item_number
       AND i.status = 'pending' AND i.attempts = u.attempts AND i.reprocessed_by IS NULL
    RETURNING i.item_number),
postponed AS (
    UPDATE reliable_imports.import_batch_items i
       SET attempts = i.attempts + 1, due_at = clock_timestamp() + make_interval(secs => u.seconds)
      FROM unnest($26::integer[], $27::integer[], $28::float8[]) AS u(item_number, attempts, seconds)
     WHERE i.batch_id = $1 AND i.item_number BETWEEN $2 AND $3 AND i.item_number = u.item_number
       AND i.status = 'pending' AND i.attempts = u.attempts AND i.reprocessed_by IS NULL
    RETURNING i.item_number),
logged AS (
    INSERT INTO reliable_imports.import_logs (batch_id, item_number, level, message, details, logged_at)
    SELECT $1, l.item_number, l.level, l.message, l.details::jsonb, l.logged_at
      FROM unnest($29::integer[], $30::text[], $31::text[], $32::text[], $33::timestamptz[])
           WITH ORDINALITY AS l(item_number, level, message, details, logged_at, n)
     ORDER BY l.n)
SELECT (SELECT count(*) FROM settled) + (SELECT count(*) FROM failed) + (SELECT count(*) FROM postponed);

-- name: ask_items
-- The oracle for an interval in doubt: the row locks wait until the old backend's transaction is over.
SELECT item_number, status, attempts, error_group, reprocessed_by
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND item_number BETWEEN $2 AND $3 AND item_number = ANY ($4::integer[])
 ORDER BY item_number
   FOR UPDATE;
