-- At most one open try of a record, one outbox for the hooks that run outside of any transaction, and a purge that nothing
-- overtakes.

-- Which batch of a lineage has the last try of each record that was ever reprocessed; without a row the root's own item is
-- the last try. A reprocessing writes its items only where it has replaced this row, and it replaces only the row that it
-- has read: the primary key, not care, keeps a second open try of the same record out. Settling an item touches nothing here.
CREATE TABLE reliable_imports.import_last_tries (
    root_batch_id    uuid NOT NULL,
    root_item_number integer NOT NULL,
    batch_id         uuid NOT NULL,                 -- the batch of the last try
    replaces         uuid NOT NULL,                 -- the batch of the try before it
    PRIMARY KEY (root_batch_id, root_item_number)
) WITH (fillfactor = 85);

INSERT INTO reliable_imports.import_last_tries (root_batch_id, root_item_number, batch_id, replaces)
SELECT DISTINCT ON (b.root_batch_id, i.root_item_number) b.root_batch_id, i.root_item_number, i.batch_id, b.root_batch_id
  FROM reliable_imports.import_batches b
  JOIN reliable_imports.import_batch_items i ON i.batch_id = b.id
 WHERE b.id <> b.root_batch_id AND i.root_item_number IS NOT NULL
 ORDER BY b.root_batch_id, i.root_item_number, i.batch_id DESC;

-- Earlier versions left tries behind that a complete reprocessing had replaced: they could run a second time.
UPDATE reliable_imports.import_batch_items i
   SET reprocessed_by = t.batch_id
  FROM reliable_imports.import_batches b, reliable_imports.import_last_tries t
 WHERE b.root_batch_id = t.root_batch_id AND i.batch_id = b.id
   AND coalesce(i.root_item_number, i.item_number) = t.root_item_number AND i.batch_id <> t.batch_id
   AND i.reprocessed_by IS NULL
   AND (i.status = 'failed' OR (i.status = 'pending' AND b.status = 'cancelled'));

-- What a plain reprocessing may run again: the last try of a record, if it has failed, or is pending in a cancelled batch.
CREATE VIEW reliable_imports.import_eligible_items AS
SELECT b.root_batch_id, i.batch_id, i.item_number, coalesce(i.root_item_number, i.item_number) AS root_number,
       i.source_data, i.raw, i.error_group
  FROM reliable_imports.import_batches b
  JOIN reliable_imports.import_batch_items i ON i.batch_id = b.id
 WHERE i.error_group IS NOT NULL AND i.status = 'failed' AND i.reprocessed_by IS NULL
   AND NOT EXISTS (SELECT FROM reliable_imports.import_last_tries t
                    WHERE t.root_batch_id = b.root_batch_id
                      AND t.root_item_number = coalesce(i.root_item_number, i.item_number) AND t.batch_id <> i.batch_id)
 UNION ALL
SELECT b.root_batch_id, i.batch_id, i.item_number, coalesce(i.root_item_number, i.item_number),
       i.source_data, i.raw, NULL
  FROM reliable_imports.import_batches b
  JOIN reliable_imports.import_batch_items i ON i.batch_id = b.id
 WHERE b.status = 'cancelled' AND i.status = 'pending' AND i.reprocessed_by IS NULL
   AND NOT EXISTS (SELECT FROM reliable_imports.import_last_tries t
                    WHERE t.root_batch_id = b.root_batch_id
                      AND t.root_item_number = coalesce(i.root_item_number, i.item_number) AND t.batch_id <> i.batch_id);

-- Set under the root's lock before anything of a lineage is deleted: nothing joins the lineage from then on.
ALTER TABLE reliable_imports.import_batches ADD COLUMN purging_at timestamptz;

-- A late failure mark of one process's on_batch_start could turn a batch that another processed into a failed one, with
-- items pending that nothing got out again.
UPDATE reliable_imports.import_batches b
   SET status = 'processing', error = NULL
 WHERE b.status = 'failed' AND b.started_at IS NOT NULL AND b.finished_at IS NULL
   AND EXISTS (SELECT FROM reliable_imports.import_batch_ranges r WHERE r.batch_id = b.id AND r.state <> 'done');

-- The outbox: hooks that run outside of any transaction. after_batch_complete, the processor's and the endpoint's, is promised
-- at least once, and after_create_batch before any item. A row is written in the transaction that it is about, and goes
-- when its hook has run. Who runs a hook claims the row and renews the claim; when that process dies, the claim runs out and
-- any other process that knows the hook runs it.
CREATE TABLE reliable_imports.import_outbox (
    batch_id      uuid NOT NULL,
    hook          text NOT NULL
                  CHECK (hook IN ('endpoint.after_create_batch', 'processor.after_batch_complete',
                                  'endpoint.after_batch_complete')),
    claimed_by    uuid,                             -- the process that runs it, or is about to
    claimed_until timestamptz,
    claims        integer NOT NULL DEFAULT 0,       -- by how many processes; those that were stopped do not count
    details       jsonb,                            -- of after_create_batch: what was asked for
    PRIMARY KEY (batch_id, hook)
) WITH (fillfactor = 50);

INSERT INTO reliable_imports.import_outbox (batch_id, hook)
SELECT b.id, h.hook
  FROM reliable_imports.import_batches b
 CROSS JOIN LATERAL (VALUES ('processor.after_batch_complete', b.notified_at),
                            ('endpoint.after_batch_complete', b.announced_at)) AS h(hook, ran_at)
 WHERE b.finished_at IS NOT NULL AND b.status <> 'cancelled' AND h.ran_at IS NULL;

DROP INDEX reliable_imports.import_batches_unannounced;
COMMENT ON COLUMN reliable_imports.import_batches.notifying_until IS 'Not used any more: see import_outbox.';
COMMENT ON COLUMN reliable_imports.import_batches.announcing_until IS 'Not used any more: see import_outbox.';

-- What has been settled in each range. A range that is leased when its batch is cancelled may never be released, if its holder
-- is killed: its counts come from its items.
CREATE VIEW reliable_imports.import_range_counts AS
SELECT r.batch_id, r.first_item, r.last_item, r.state, r.deferred,
       coalesce(k.completed, r.completed) AS completed, coalesce(k.skipped, r.skipped) AS skipped,
       coalesce(k.failed, r.failed) AS failed, coalesce(k.groups, r.groups) AS groups
  FROM reliable_imports.import_batch_ranges r
  LEFT JOIN LATERAL (
       SELECT (count(*) FILTER (WHERE i.status = 'completed'))::integer AS completed,
              (count(*) FILTER (WHERE i.status = 'skipped'))::integer AS skipped,
              (count(*) FILTER (WHERE i.status = 'failed'))::integer AS failed,
              (SELECT coalesce(jsonb_object_agg(g.error_group, g.items), '{}')
                 FROM (SELECT f.error_group, count(*) AS items
                         FROM reliable_imports.import_batch_items f
                        WHERE f.batch_id = r.batch_id AND f.error_group IS NOT NULL
                          AND f.item_number BETWEEN r.first_item AND r.last_item
                        GROUP BY f.error_group) g) AS groups
         FROM reliable_imports.import_batches b
         JOIN reliable_imports.import_batch_items i
           ON i.batch_id = r.batch_id AND i.item_number BETWEEN r.first_item AND r.last_item
        WHERE b.id = r.batch_id AND b.status = 'cancelled' AND r.state = 'leased'
       HAVING count(*) > 0) k ON true;

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
         FROM reliable_imports.import_range_counts r
        WHERE r.batch_id = b.id) t;
