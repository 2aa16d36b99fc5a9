-- Measurements for monitoring. Nothing here reads items: ranges and finished batches have counts. A parameter with rules
-- limits a statement to the batches that the caller may see (null: all).

-- name: batches
-- The number of batches by type and status.
SELECT b.batch_type, b.status, count(*) AS batches
  FROM reliable_imports.import_batches b
 WHERE $1::text IS NULL OR EXISTS (
       SELECT FROM reliable_imports.import_batches o
        WHERE o.id = b.root_batch_id
          AND reliable_imports.is_visible($1::text::jsonb, o.batch_type, o.created_by, o.metadata))
 GROUP BY b.batch_type, b.status
 ORDER BY batch_type, status;

-- name: items
-- The number of items by type and outcome. A finished batch has totals; the ranges of any other batch are added up.
SELECT b.batch_type,
       coalesce(sum(coalesce(b.completed_items, r.completed)), 0)::bigint AS completed,
       coalesce(sum(coalesce(b.skipped_items, r.skipped)), 0)::bigint AS skipped,
       coalesce(sum(coalesce(b.failed_items, r.failed)), 0)::bigint AS failed,
       coalesce(sum(b.total_items), 0)::bigint AS total
  FROM reliable_imports.import_batches b
 CROSS JOIN LATERAL (
       SELECT sum(k.completed) AS completed, sum(k.skipped) AS skipped, sum(k.failed) AS failed
         FROM reliable_imports.import_batch_ranges k
        WHERE k.batch_id = b.id AND b.completed_items IS NULL) r
 WHERE $1::text IS NULL OR EXISTS (
       SELECT FROM reliable_imports.import_batches o
        WHERE o.id = b.root_batch_id
          AND reliable_imports.is_visible($1::text::jsonb, o.batch_type, o.created_by, o.metadata))
 GROUP BY b.batch_type
 ORDER BY b.batch_type;

-- name: durations
-- Finished batches by type and duration. $1 are the upper bounds, in seconds, of all buckets but the last.
SELECT d.batch_type, width_bucket(d.seconds, $1::float8[]) AS bucket, count(*) AS batches, sum(d.seconds) AS seconds
  FROM (SELECT b.batch_type, extract(epoch FROM b.finished_at - b.started_at)::float8 AS seconds
          FROM reliable_imports.import_batches b
         WHERE b.finished_at IS NOT NULL AND b.started_at IS NOT NULL
           AND ($2::text IS NULL OR EXISTS (
                SELECT FROM reliable_imports.import_batches o
                 WHERE o.id = b.root_batch_id
                   AND reliable_imports.is_visible($2::text::jsonb, o.batch_type, o.created_by, o.metadata)))) d
 GROUP BY d.batch_type, bucket
 ORDER BY d.batch_type, bucket;

-- name: health
-- The age in seconds of the oldest transaction in this database (of other roles only if this role may see them), and the
-- number of expired leases that no worker has taken over.
SELECT (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - a.xact_start)), 0)::float8
          FROM pg_stat_activity a
         WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()) AS oldest_transaction,
       (SELECT count(*)
          FROM reliable_imports.import_batches b
          JOIN reliable_imports.import_batch_ranges r ON r.batch_id = b.id
         WHERE b.status = 'processing' AND r.state = 'leased' AND r.lease_until < clock_timestamp()
           AND ($1::text IS NULL OR EXISTS (
                SELECT FROM reliable_imports.import_batches o
                 WHERE o.id = b.root_batch_id
                   AND reliable_imports.is_visible($1::text::jsonb, o.batch_type, o.created_by, o.metadata))))
       AS expired_leases;
