-- Settling an item in the same message that commits it. One row is updated, or an error is raised, so that the COMMIT
-- behind it in the message is not reached: the fence holds without a round trip in which somebody compares a count.

CREATE FUNCTION reliable_imports.settle_item(batch uuid, number integer, tries integer, outcome jsonb)
RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF outcome IS NULL THEN  -- completed, and nothing more is to be said
        UPDATE reliable_imports.import_batch_items i
           SET status = 'completed', attempts = i.attempts + 1, started_at = now(), finished_at = clock_timestamp()
         WHERE i.batch_id = batch AND i.item_number = number
           AND i.status = 'pending' AND i.attempts = tries AND i.reprocessed_by IS NULL;
    ELSIF outcome ->> 'status' = 'failed' THEN
        UPDATE reliable_imports.import_batch_items i
           SET status = 'failed', attempts = i.attempts + 1,
               error_kind = outcome ->> 'kind', error_type = outcome ->> 'type', error_message = outcome ->> 'message',
               error_group = outcome ->> 'group', error_sqlstate = outcome ->> 'sqlstate',
               error_constraint = outcome ->> 'constraint', error_table = outcome ->> 'table',
               error_column = outcome ->> 'column', error_detail = outcome ->> 'detail', error_hint = outcome ->> 'hint',
               error_traceback = outcome ->> 'traceback', error_fields = (outcome ->> 'fields')::jsonb,
               started_at = clock_timestamp() - make_interval(secs => (outcome ->> 'seconds')::float8),
               finished_at = clock_timestamp()
         WHERE i.batch_id = batch AND i.item_number = number
           AND i.status = 'pending' AND i.attempts = tries AND i.reprocessed_by IS NULL;
    ELSE
        UPDATE reliable_imports.import_batch_items i
           SET status = outcome ->> 'status', attempts = i.attempts + 1,
               target_table = outcome ->> 'target_table', target_id = outcome ->> 'target_id',
               processed_data = (outcome ->> 'processed_data')::jsonb, skip_reason = outcome ->> 'skip_reason',
               started_at = now(), finished_at = clock_timestamp()
         WHERE i.batch_id = batch AND i.item_number = number
           AND i.status = 'pending' AND i.attempts = tries AND i.reprocessed_by IS NULL;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'item % of batch % is not pending in try %', number, batch, tries + 1 USING ERRCODE = 'RI001';
    END IF;
END
$$;
