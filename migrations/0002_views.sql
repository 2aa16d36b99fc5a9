-- Two views for psql. The library itself does not read them.

CREATE VIEW reliable_imports.import_batch_summary AS
SELECT b.id AS batch_id,
       b.batch_type,
       b.status,
       b.total_items,
       t.completed AS completed_items,
       t.skipped AS skipped_items,
       t.failed AS failed_items,
       b.total_items - t.completed - t.skipped - t.failed AS pending_items,
       round(100.0 * (t.completed + t.skipped) / nullif(t.completed + t.skipped + t.failed, 0), 2) AS success_rate,
       b.created_at,
       b.started_at,
       b.finished_at,
       coalesce(b.finished_at, clock_timestamp()) - b.started_at AS duration,
       b.source_name,
       b.parent_batch_id,
       b.root_batch_id,
       b.created_by,
       b.pause_reason,
       b.error
  FROM reliable_imports.import_batches b
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(r.completed), 0)::bigint AS completed,
              coalesce(sum(r.skipped), 0)::bigint AS skipped,
              coalesce(sum(r.failed), 0)::bigint AS failed
         FROM reliable_imports.import_batch_ranges r
        WHERE r.batch_id = b.id) t;

COMMENT ON VIEW reliable_imports.import_batch_summary IS
    'One row a batch. The counts come from its ranges: final when it is finished, about a second old while it runs.';

-- An item that is being reprocessed, or was with success, is somebody else's concern: only the last failure of each
-- record is listed, so a repaired batch leaves the report.
CREATE VIEW reliable_imports.failed_imports_report AS
SELECT b.batch_type,
       i.batch_id,
       i.item_number,
       b.source_name,
       i.source_line,
       i.error_kind,
       i.error_type,
       i.error_sqlstate,
       i.error_constraint,
       i.error_message,
       i.error_detail,
       i.error_group,
       i.attempts,
       i.finished_at AS failed_at,
       i.source_data,
       b.root_batch_id,
       coalesce(i.root_item_number, i.item_number) AS root_item_number
  FROM reliable_imports.import_batch_items i
  JOIN reliable_imports.import_batches b ON b.id = i.batch_id
 WHERE i.error_group IS NOT NULL
   AND i.status = 'failed'
   AND i.reprocessed_by IS NULL;

COMMENT ON VIEW reliable_imports.failed_imports_report IS
    'Every record whose last outcome is a failure that no reprocessing has taken up.';
