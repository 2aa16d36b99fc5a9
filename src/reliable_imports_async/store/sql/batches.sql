-- Batches, in the order of a batch's life.

-- name: insert_batch
-- Creates the row before the items, so that a second creation with the same key waits for this one. Returns no row if the
-- key is taken.
INSERT INTO reliable_imports.import_batches
       (id, batch_type, parent_batch_id, root_batch_id, reprocesses_all, created_by, idempotency_key, source_name,
        source_format, source_size, source_sha256, source_columns, options, metadata)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::text::jsonb, $14::text::jsonb)
ON CONFLICT (coalesce(created_by, ''), idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id;

-- name: find_idempotent
-- The batch with an idempotency key of a creator.
SELECT id, content_sha256, batch_type
  FROM reliable_imports.import_batches
 WHERE coalesce(created_by, '') = coalesce($1, '') AND idempotency_key = $2;

-- name: lock_file
-- Lets two imports of the same file for the same batch type be created one after the other. The lock ends with the
-- transaction.
SELECT pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 0));

-- name: find_same_file
-- The newest batch of a type that was created from the same file and that the caller may see by the rules in $3 (null: no
-- rules).
SELECT b.id, b.created_at
  FROM reliable_imports.import_batches b
  JOIN reliable_imports.import_batches r ON r.id = b.root_batch_id
 WHERE b.batch_type = $1 AND b.source_sha256 = $2 AND b.status <> 'cancelled'
   AND ($3::text IS NULL
        OR reliable_imports.is_visible($3::text::jsonb, r.batch_type, r.created_by, r.metadata))
 ORDER BY b.id DESC
 LIMIT 1;

-- name: complete_creation
-- Stores what is only known after the last record.
UPDATE reliable_imports.import_batches
   SET total_items = $2, content_sha256 = $3, source_encoding = $4, notes = $5
 WHERE id = $1;

-- name: probe_batch_id
-- Waits until a creation whose COMMIT was not answered has ended, because the insert blocks on its key. Returns no row if
-- that creation has committed. Runs in a transaction that is rolled back.
INSERT INTO reliable_imports.import_batches (id, batch_type, root_batch_id)
VALUES ($1, 'probe', $1)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: get_batch
-- One batch.
SELECT id, batch_type, status, parent_batch_id, root_batch_id, created_by, metadata::text AS metadata,
       options::text AS options, source_name, source_columns, total_items, pause_reason, error, created_at, started_at,
       finished_at
  FROM reliable_imports.import_batches
 WHERE id = $1;

-- name: lock_batch
-- The same with its row locked, so that starts and finishes happen one at a time.
SELECT id, batch_type, status, parent_batch_id, root_batch_id, created_by, metadata::text AS metadata,
       options::text AS options, source_name, source_columns, total_items, pause_reason, error, created_at, started_at,
       finished_at
  FROM reliable_imports.import_batches
 WHERE id = $1
   FOR UPDATE;

-- name: list_batches
-- A page of batches, newest first. $5 is the last id of the previous page, $8 the rules of what the caller may see (null:
-- everything).
SELECT b.id, b.batch_type, b.status, b.parent_batch_id, b.root_batch_id, b.created_by, b.metadata::text AS metadata,
       b.options::text AS options, b.source_name, b.source_columns, b.total_items, b.pause_reason, b.error, b.created_at,
       b.started_at, b.finished_at
  FROM reliable_imports.import_batches b
 WHERE ($1::text IS NULL OR b.batch_type = $1)
   AND ($2::text IS NULL OR b.status = $2)
   AND ($3::uuid IS NULL OR b.root_batch_id = $3)
   AND ($4::timestamptz IS NULL OR b.created_at >= $4)
   AND ($5::uuid IS NULL OR b.id < $5)
   AND ($7::timestamptz IS NULL OR b.created_at < $7)
   AND ($8::text IS NULL
        OR CASE WHEN b.root_batch_id = b.id
                THEN reliable_imports.is_visible($8::text::jsonb, b.batch_type, b.created_by, b.metadata)
                ELSE (SELECT reliable_imports.is_visible($8::text::jsonb, r.batch_type, r.created_by, r.metadata)
                        FROM reliable_imports.import_batches r
                       WHERE r.id = b.root_batch_id)
           END)
   AND ($9::text IS NULL
        OR strpos(lower(concat_ws(' ', b.source_name, b.batch_type, b.created_by, b.id)), lower($9)) > 0)
 ORDER BY b.id DESC
 LIMIT $6;

-- name: list_visible
-- The batches among $1 that the caller may see by the rules in $2.
SELECT b.id
  FROM reliable_imports.import_batches b
  JOIN reliable_imports.import_batches r ON r.id = b.root_batch_id
 WHERE b.id = ANY ($1::uuid[])
   AND reliable_imports.is_visible($2::text::jsonb, r.batch_type, r.created_by, r.metadata);

-- name: find_by_tail
-- Batches whose id ends with these digits. Two rows are enough to know that the end is not unique.
SELECT id FROM reliable_imports.import_batches WHERE replace(id::text, '-', '') LIKE '%' || $1 LIMIT 2;

-- name: lineage
-- All batches in the lineage of a batch, oldest first: the root and its reprocessings.
SELECT id, batch_type, status, parent_batch_id, root_batch_id, created_by, metadata::text AS metadata,
       options::text AS options, source_name, source_columns, total_items, pause_reason, error, created_at, started_at,
       finished_at
  FROM reliable_imports.import_batches
 WHERE root_batch_id = (SELECT k.root_batch_id FROM reliable_imports.import_batches k WHERE k.id = $1)
 ORDER BY id;

-- name: mark_started
-- The last statement of the transaction that runs on_batch_start.
UPDATE reliable_imports.import_batches
   SET status = 'processing', started_at = coalesce(started_at, clock_timestamp()), error = NULL,
       metadata = metadata || $2::text::jsonb
 WHERE id = $1 AND started_at IS NULL AND status IN ('pending', 'failed')
RETURNING started_at, finished_at, metadata::text AS metadata;

-- name: mark_finished
-- The last statement of the transaction that runs on_batch_complete.
UPDATE reliable_imports.import_batches b
   SET status = $2, finished_at = clock_timestamp(), completed_items = $3, skipped_items = $4, failed_items = $5,
       error = $7, metadata = metadata || $6::text::jsonb
 WHERE b.id = $1 AND b.started_at IS NOT NULL AND b.finished_at IS NULL AND b.status IN ('processing', 'failed')
   AND NOT EXISTS (SELECT FROM reliable_imports.import_batch_ranges r WHERE r.batch_id = b.id AND r.state <> 'done')
RETURNING b.started_at, b.finished_at, b.metadata::text AS metadata;

-- name: mark_start_failed
-- Marks a batch as failed whose on_batch_start raised, unless another process has started, paused or cancelled it since.
UPDATE reliable_imports.import_batches
   SET status = 'failed', error = $2
 WHERE id = $1 AND started_at IS NULL AND status IN ('pending', 'failed');

-- name: mark_finish_failed
-- Marks a batch as failed, but not finished, whose on_batch_complete or check raised, unless another process has finished,
-- paused or cancelled it since.
UPDATE reliable_imports.import_batches b
   SET status = 'failed', error = $2
 WHERE b.id = $1 AND b.started_at IS NOT NULL AND b.finished_at IS NULL AND b.status IN ('processing', 'failed')
   AND NOT EXISTS (SELECT FROM reliable_imports.import_batch_ranges r WHERE r.batch_id = b.id AND r.state <> 'done');

-- name: mark_unfailed
-- Continues a batch that is marked as failed although it was started and has unfinished ranges.
UPDATE reliable_imports.import_batches b
   SET status = 'processing', error = NULL
 WHERE b.id = $1 AND b.started_at IS NOT NULL AND b.finished_at IS NULL AND b.status = 'failed'
   AND EXISTS (SELECT FROM reliable_imports.import_batch_ranges r WHERE r.batch_id = b.id AND r.state <> 'done');

-- name: bound_transaction
-- Limits how long statements of this transaction wait for a lock, and how long they and the pauses between them may take.
-- A process that freezes in a hook thus loses its connection, and with it the lock on the batch.
SELECT set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true),
       set_config('idle_in_transaction_session_timeout', $2, true);

-- name: mark_enqueued
-- Marks a batch as one for workers. Returns no row if it has ended or is paused.
UPDATE reliable_imports.import_batches b
   SET enqueued_at = coalesce(b.enqueued_at, clock_timestamp())
 WHERE b.id = $1 AND b.finished_at IS NULL AND b.status IN ('pending', 'processing', 'failed')
RETURNING b.batch_type,
          (SELECT count(*)
             FROM reliable_imports.import_batch_ranges r
            WHERE r.batch_id = $1 AND r.state <> 'done') AS unfinished;

-- name: list_abandoned
-- Batches for workers without a live lease that have something to claim, to reopen or to finish: no worker works on them,
-- although one could.
SELECT b.id
  FROM reliable_imports.import_batches b
 WHERE b.enqueued_at IS NOT NULL AND b.finished_at IS NULL AND b.status IN ('pending', 'processing')
   AND b.batch_type = ANY ($1)
   AND NOT EXISTS (SELECT FROM reliable_imports.import_batch_ranges r
                    WHERE r.batch_id = b.id AND r.state = 'leased' AND r.lease_until >= clock_timestamp())
   AND (EXISTS (SELECT FROM reliable_imports.import_batch_ranges r
                 WHERE r.batch_id = b.id AND r.state IN ('ready', 'leased')
                   AND (r.not_before IS NULL OR r.not_before <= clock_timestamp()))
        OR NOT EXISTS (SELECT FROM reliable_imports.import_batch_ranges r
                        WHERE r.batch_id = b.id AND r.state IN ('ready', 'leased')))
 ORDER BY b.id
 LIMIT $2;

-- name: find_with_free_range
-- A batch for workers with a range that no worker holds, except the batches $2, which this worker already drains.
SELECT b.id
  FROM reliable_imports.import_batches b
 WHERE b.enqueued_at IS NOT NULL AND b.finished_at IS NULL AND b.status = 'processing'
   AND b.batch_type = ANY ($1) AND b.id <> ALL ($2::uuid[])
   AND EXISTS (SELECT FROM reliable_imports.import_batch_ranges r
                WHERE r.batch_id = b.id
                  AND (r.state = 'ready' AND (r.not_before IS NULL OR r.not_before <= clock_timestamp())
                       OR r.state = 'leased' AND clock_timestamp()
                          > greatest(r.lease_until, pg_postmaster_start_time() + make_interval(secs => $3))))
 ORDER BY b.id
 LIMIT 1;

-- name: pause_batch
-- Stops further items from starting. Running items are still settled.
UPDATE reliable_imports.import_batches
   SET status = 'paused', pause_reason = $2
 WHERE id = $1 AND status IN ('pending', 'processing')
RETURNING id;

-- name: resume_batch
-- Ends a pause, and returns whether the batch is for workers. Items that have failed so far do not count towards the
-- thresholds again.
UPDATE reliable_imports.import_batches b
   SET status = CASE WHEN b.started_at IS NULL THEN 'pending' ELSE 'processing' END, pause_reason = NULL,
       options = b.options || jsonb_build_object('forgiven', (
           SELECT jsonb_build_object('failed', coalesce(sum(r.failed), 0),
                                     'settled', coalesce(sum(r.completed + r.skipped + r.failed), 0))
             FROM reliable_imports.import_batch_ranges r
            WHERE r.batch_id = $1))
 WHERE b.id = $1 AND b.status = 'paused'
RETURNING b.enqueued_at IS NOT NULL;

-- name: set_options
-- Adds to the options of a batch that is not finished.
UPDATE reliable_imports.import_batches
   SET options = options || $2::text::jsonb
 WHERE id = $1 AND finished_at IS NULL;

-- name: cancel_batch
-- Cancels a batch permanently. Items that have not started stay pending.
UPDATE reliable_imports.import_batches
   SET status = 'cancelled', finished_at = clock_timestamp(), pause_reason = NULL
 WHERE id = $1 AND finished_at IS NULL
RETURNING id;

-- name: list_purgeable
-- Root batches with an id above $4 whose lineage finished completely before a time.
SELECT b.root_batch_id
  FROM reliable_imports.import_batches b
 WHERE ($2::text IS NULL OR b.batch_type = $2) AND ($4::uuid IS NULL OR b.root_batch_id > $4)
 GROUP BY b.root_batch_id
HAVING bool_and(b.finished_at IS NOT NULL AND b.finished_at < $1)
 ORDER BY b.root_batch_id
 LIMIT $3;

-- name: delete_batches
-- The rows of a lineage. Their items, ranges and so on were deleted before.
DELETE FROM reliable_imports.import_batches WHERE id = ANY($1::uuid[]);
