-- SQL that several statements share: the columns of an item, the counts of a range, the ranges that can have items of a
-- status, and settling one item. Views and BEGIN ATOMIC bodies are bound to the tables and to PostgreSQL's functions when
-- they are created, so the search_path of the caller does not matter.

CREATE VIEW reliable_imports.import_item_details AS
SELECT i.batch_id, i.item_number, i.status, i.attempts, i.source_data::text AS source_data, i.raw, i.source_line,
       i.item_key, coalesce(i.root_item_number, i.item_number) AS root_item_number, i.due_at, i.target_table, i.target_id,
       i.processed_data::text AS processed_data, i.skip_reason, i.error_kind, i.error_type, i.error_message,
       i.error_sqlstate, i.error_constraint, i.error_table, i.error_column, i.error_detail, i.error_hint,
       i.error_traceback, i.error_fields::text AS error_fields, i.error_group, i.reprocessed_by, i.started_at,
       i.finished_at, b.root_batch_id
  FROM reliable_imports.import_batch_items i
  JOIN reliable_imports.import_batches b ON b.id = i.batch_id;

COMMENT ON VIEW reliable_imports.import_item_details IS
    'An item with everything that is stored about it. JSON is text here: drivers may decode jsonb in their own ways.';

-- These functions are neither STRICT nor VOLATILE, and set nothing, so that the planner replaces calls by their queries.
CREATE FUNCTION reliable_imports.count_failures(batch uuid, first integer, last integer)
RETURNS TABLE (failed integer, groups jsonb)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(sum(g.items), 0)::integer, coalesce(jsonb_object_agg(g.error_group, g.items), '{}')
      FROM (SELECT f.error_group, count(*) AS items
              FROM reliable_imports.import_batch_items f
             WHERE f.batch_id = batch AND f.error_group IS NOT NULL AND f.item_number BETWEEN first AND last
             GROUP BY f.error_group) g;
END;

COMMENT ON FUNCTION reliable_imports.count_failures IS
    'How many items of a run of numbers have failed, and how many of them each failure group has.';

CREATE FUNCTION reliable_imports.count_items(batch uuid, first integer, last integer)
RETURNS TABLE (completed integer, skipped integer, failed integer, pending integer, groups jsonb)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT (count(*) FILTER (WHERE i.status = 'completed'))::integer,
           (count(*) FILTER (WHERE i.status = 'skipped'))::integer,
           (count(*) FILTER (WHERE i.status = 'failed'))::integer,
           (count(*) FILTER (WHERE i.status = 'pending'))::integer,
           (SELECT f.groups FROM reliable_imports.count_failures(batch, first, last) f)
      FROM reliable_imports.import_batch_items i
     WHERE i.batch_id = batch AND i.item_number BETWEEN first AND last;
END;

COMMENT ON FUNCTION reliable_imports.count_items IS
    'How many items of a run of numbers have each status, and how many of the failed ones each failure group has.';

CREATE FUNCTION reliable_imports.ranges_with_status(batch uuid, status text, after integer)
RETURNS TABLE (first_item integer, last_item integer)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT r.first_item, r.last_item
      FROM reliable_imports.import_batch_ranges r
     WHERE r.batch_id = batch AND r.last_item > after
       AND (r.state = 'leased'
            OR CASE ranges_with_status.status
                    WHEN 'completed' THEN r.completed
                    WHEN 'skipped' THEN r.skipped
                    WHEN 'failed' THEN r.failed
                    ELSE r.last_item - r.first_item + 1 - r.completed - r.skipped - r.failed
               END > 0)
     ORDER BY r.first_item;
END;

COMMENT ON FUNCTION reliable_imports.ranges_with_status IS
    'The ranges that end behind an item number and have items of a status, or whose counts may be out of date.';

-- The holder of a range may be killed before it releases the range of a cancelled batch: the counts of a range that is
-- leased then come from its items.
CREATE OR REPLACE VIEW reliable_imports.import_range_counts AS
SELECT r.batch_id, r.first_item, r.last_item, r.state, r.deferred,
       coalesce(k.completed, r.completed) AS completed, coalesce(k.skipped, r.skipped) AS skipped,
       coalesce(k.failed, r.failed) AS failed, coalesce(k.groups, r.groups) AS groups
  FROM reliable_imports.import_batch_ranges r
  LEFT JOIN LATERAL (
       SELECT n.completed, n.skipped, n.failed, n.groups
         FROM reliable_imports.import_batches b
        CROSS JOIN LATERAL reliable_imports.count_items(r.batch_id, r.first_item, r.last_item) n
        WHERE b.id = r.batch_id AND b.status = 'cancelled' AND r.state = 'leased'
          AND n.completed + n.skipped + n.failed + n.pending > 0
        OFFSET 0) k ON true;  -- or the batch would be looked up for each range

COMMENT ON VIEW reliable_imports.import_range_counts IS
    'What has been settled in each range: from the range itself, or from its items where nobody may update the range.';

-- Settles one item, alone or in the same message as the COMMIT of its transaction. If the fence does not hold, it raises
-- RI001, so that the server does not reach a COMMIT behind it in the message. `outcome` is null if the item completed with
-- nothing else to store; otherwise it has the values to store by name. `after` is the time until a retry is due in seconds,
-- `lines` are log lines; with `batch_type` and `version` the item's content is remembered under its key. Clocks are
-- qualified, because this runs with the search_path of the processor.
CREATE OR REPLACE FUNCTION reliable_imports.settle_item(batch uuid, number integer, tries integer, outcome jsonb)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE reliable_imports.import_batch_items i
       SET status = coalesce(outcome ->> 'status', 'completed'), attempts = i.attempts + 1,
           target_table = outcome ->> 'target_table', target_id = outcome ->> 'target_id',
           processed_data = (outcome ->> 'processed_data')::jsonb, skip_reason = outcome ->> 'skip_reason',
           error_kind = outcome ->> 'kind', error_type = outcome ->> 'type', error_message = outcome ->> 'message',
           error_group = outcome ->> 'group', error_sqlstate = outcome ->> 'sqlstate',
           error_constraint = outcome ->> 'constraint', error_table = outcome ->> 'table',
           error_column = outcome ->> 'column', error_detail = outcome ->> 'detail', error_hint = outcome ->> 'hint',
           error_traceback = outcome ->> 'traceback', error_fields = (outcome ->> 'fields')::jsonb,
           due_at = coalesce(pg_catalog.clock_timestamp()
                             + pg_catalog.make_interval(secs => (outcome ->> 'after')::float8), i.due_at),
           started_at = CASE outcome ->> 'status'
                             WHEN 'pending' THEN NULL
                             WHEN 'failed' THEN pg_catalog.clock_timestamp()
                                                - pg_catalog.make_interval(secs => (outcome ->> 'seconds')::float8)
                             ELSE pg_catalog.now() END,
           finished_at = CASE outcome ->> 'status' WHEN 'pending' THEN NULL ELSE pg_catalog.clock_timestamp() END
     WHERE i.batch_id = batch AND i.item_number = number
       AND i.status = 'pending' AND i.attempts = tries AND i.reprocessed_by IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'item % of batch % is not pending in try %', number, batch, tries + 1 USING ERRCODE = 'RI001';
    END IF;
    IF outcome ? 'lines' THEN
        INSERT INTO reliable_imports.import_logs (batch_id, item_number, level, message, details, logged_at)
        SELECT batch, number, l.v ->> 0, l.v ->> 1, (l.v ->> 2)::jsonb, (l.v ->> 3)::timestamptz
          FROM pg_catalog.jsonb_array_elements(outcome -> 'lines') WITH ORDINALITY AS l(v, n)
         ORDER BY l.n;
    END IF;
    IF outcome ? 'batch_type' THEN
        INSERT INTO reliable_imports.import_item_keys AS k (batch_type, item_key, content_sha256, batch_id, item_number)
        SELECT outcome ->> 'batch_type', i.item_key,
               pg_catalog.sha256(pg_catalog.convert_to((outcome ->> 'version') || E'\x1f' || i.source_data::text, 'UTF8')),
               i.batch_id, i.item_number
          FROM reliable_imports.import_batch_items i
         WHERE i.batch_id = batch AND i.item_number = number
            ON CONFLICT (batch_type, item_key) DO UPDATE
           SET content_sha256 = excluded.content_sha256, batch_id = excluded.batch_id, item_number = excluded.item_number;
    END IF;
END
$$;

COMMENT ON FUNCTION reliable_imports.settle_item IS
    'Settles one item under the fence, with its log lines and the content of its key; raises RI001 if the fence is lost.';
