-- Settling the items of an interval, all in one statement. The fence is that of a single item; whoever sends this compares
-- the count with the number of items, and rolls everything back when they differ. Items are found by their numbers, and
-- nothing is joined: with the statistics of a new table, or with none, a join may compare each item with each. Arrays come
-- as text: the driver asks each new connection about array types first, and that takes longer than settling an interval.

-- name: settle_completed
-- The plain case: every item completed in its same try, and nothing more is to be said about any.
UPDATE reliable_imports.import_batch_items
   SET status = 'completed', attempts = attempts + 1, started_at = now(), finished_at = clock_timestamp()
 WHERE batch_id = $1 AND item_number = ANY ($2::text::integer[])
   AND status = 'pending' AND attempts = $3 AND reprocessed_by IS NULL;

-- name: settle_outcomes
-- The same when some have results, were skipped, failed, are to be tried again, or wrote log lines.
-- $2, $3: the plain ones. $4, $5: the others, and by number what is stored about each.
WITH plain AS (
    UPDATE reliable_imports.import_batch_items
       SET status = 'completed', attempts = attempts + 1, started_at = now(), finished_at = clock_timestamp()
     WHERE batch_id = $1 AND item_number = ANY ($2::text::integer[])
       AND status = 'pending' AND attempts = $3 AND reprocessed_by IS NULL
    RETURNING item_number),
given AS MATERIALIZED (SELECT $5::text::jsonb AS outcomes),
others AS (
    UPDATE reliable_imports.import_batch_items i
       SET (status, target_table, target_id, processed_data, skip_reason, error_kind, error_type, error_message,
            error_group, error_sqlstate, error_constraint, error_table, error_column, error_detail, error_hint,
            error_traceback, error_fields, due_at, started_at, finished_at)
         = (SELECT o.v ->> 'status', o.v ->> 'target_table', o.v ->> 'target_id', (o.v ->> 'processed_data')::jsonb,
                   o.v ->> 'skip_reason', o.v ->> 'kind', o.v ->> 'type', o.v ->> 'message', o.v ->> 'group',
                   o.v ->> 'sqlstate', o.v ->> 'constraint', o.v ->> 'table', o.v ->> 'column', o.v ->> 'detail',
                   o.v ->> 'hint', o.v ->> 'traceback', (o.v ->> 'fields')::jsonb,
                   clock_timestamp() + make_interval(secs => (o.v ->> 'after')::float8),
                   CASE WHEN o.v ->> 'after' IS NULL
                        THEN clock_timestamp() - make_interval(secs => (o.v ->> 'seconds')::float8) END,
                   CASE WHEN o.v ->> 'after' IS NULL THEN clock_timestamp() END
              FROM (SELECT (SELECT g.outcomes FROM given g) -> i.item_number::text AS v OFFSET 0) o),
           attempts = i.attempts + 1
     WHERE i.batch_id = $1 AND i.item_number = ANY ($4::text::integer[]) AND i.status = 'pending'
       AND i.attempts = ((SELECT g.outcomes FROM given g) -> i.item_number::text ->> 'attempts')::integer
       AND i.reprocessed_by IS NULL
    RETURNING i.item_number),
logged AS (
    INSERT INTO reliable_imports.import_logs (batch_id, item_number, level, message, details, logged_at)
    SELECT $1, (l.v ->> 0)::integer, l.v ->> 1, l.v ->> 2, (l.v ->> 3)::jsonb, (l.v ->> 4)::timestamptz
      FROM json_array_elements($6::text::json) WITH ORDINALITY AS l(v, n)
     ORDER BY l.n)
SELECT (SELECT count(*) FROM plain) + (SELECT count(*) FROM others);

-- name: ask_items
-- The oracle for an interval in doubt: the row locks wait until the old backend's transaction is over.
SELECT item_number, status, attempts, error_kind, error_type, error_message, error_group, reprocessed_by
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND item_number = ANY ($2::integer[])
 ORDER BY item_number
   FOR UPDATE;
