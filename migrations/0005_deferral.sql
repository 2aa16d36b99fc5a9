-- Children before parents: what waits for other records of its batch, and the passes over it.
--
-- An item that is deferred stays as it is: pending, no try counted. Its range remembers its number, so that it does not run
-- again before the next pass, whoever takes the range over. When no range of the batch is ready or leased, one statement
-- reopens the deferred ones; the pass after one that settled nothing is the final one, in which deferral fails.

ALTER TABLE reliable_imports.import_batches
    ADD COLUMN pass_number  integer NOT NULL DEFAULT 1,
    ADD COLUMN pass_settled integer NOT NULL DEFAULT 0,   -- items with an outcome when this pass began
    ADD COLUMN final_pass   boolean NOT NULL DEFAULT false; -- the pass before this one settled nothing

ALTER TABLE reliable_imports.import_batch_ranges
    ADD COLUMN deferred   integer[] NOT NULL DEFAULT '{}', -- numbers of the items that were deferred in this pass
    ADD COLUMN final_pass boolean NOT NULL DEFAULT false;  -- what would be deferred fails instead

CREATE OR REPLACE VIEW reliable_imports.import_batch_summary AS
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
       b.error,
       t.deferred AS deferred_items
  FROM reliable_imports.import_batches b
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(r.completed), 0)::bigint AS completed,
              coalesce(sum(r.skipped), 0)::bigint AS skipped,
              coalesce(sum(r.failed), 0)::bigint AS failed,
              coalesce(sum(cardinality(r.deferred)), 0)::bigint AS deferred
         FROM reliable_imports.import_batch_ranges r
        WHERE r.batch_id = b.id) t;
