-- The data model.
--
-- A batch is a list of records to import. Each record is an item with a number (1-based, in the order of the source), and
-- each item has exactly one outcome: completed, skipped or failed. An item is pending until the transaction commits that
-- holds both its effects and its outcome; no status says "processing", because only a commit makes anything true.
-- A range is a run of consecutive item numbers: what a worker leases, what progress is counted in, what is given to
-- somebody else when a worker dies. Ranges decide who tries; only the fence on the item's row decides what counts.
--
-- Every key leads with batch_id, so that the tables can be distributed or partitioned by it. There are no foreign keys
-- between these tables: they halve the speed of COPY, and creation and purge keep the rows consistent. No index mentions
-- an item's status, so that settling an item stays a HOT update.

CREATE SCHEMA IF NOT EXISTS reliable_imports;

CREATE TABLE reliable_imports.import_batches (
    id               uuid PRIMARY KEY,              -- UUIDv7: sorts by time of creation
    batch_type       text NOT NULL,
    status           text NOT NULL DEFAULT 'pending'
                     CHECK (status IN ('pending', 'processing', 'completed', 'partial', 'failed', 'paused', 'cancelled')),
    parent_batch_id  uuid,                          -- the batch that was reprocessed
    root_batch_id    uuid NOT NULL,                 -- the first of the lineage; its own id for a new batch
    reprocesses_all  boolean NOT NULL DEFAULT false, -- made by failed_items_only=False
    created_by       text,
    idempotency_key  text,                          -- unique per creator
    content_sha256   bytea,                         -- over the stored record texts, where there is a key
    source_name      text,
    source_format    text,
    source_size      bigint,                        -- bytes as they came
    source_sha256    text,                          -- of the bytes as they came
    source_columns   text[],                        -- in the order of the file
    options          jsonb NOT NULL DEFAULT '{}',   -- what a worker elsewhere must know
    metadata         jsonb NOT NULL DEFAULT '{}',   -- the caller's own
    total_items      integer NOT NULL DEFAULT 0,
    completed_items  integer,                       -- the final totals, stored when the batch finishes
    skipped_items    integer,
    failed_items     integer,
    pause_reason     text,
    error            text,                          -- of a batch hook that failed
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    enqueued_at      timestamptz,                   -- it is for workers; null: for who calls process_batch
    started_at       timestamptz,                   -- set with the effects of on_batch_start
    finished_at      timestamptz,                   -- set with the effects of on_batch_complete
    notifying_until  timestamptz,                   -- somebody runs after_batch_complete until then
    notified_at      timestamptz,                   -- after_batch_complete has run
    announcing_until timestamptz,                   -- the same for the endpoint's after_batch_complete
    announced_at     timestamptz,
    CONSTRAINT finished_with_totals CHECK (finished_at IS NULL OR status = 'cancelled' OR completed_items IS NOT NULL)
);

-- Does not lead with batch_id: it finds a batch by what the caller knows. The table is small.
CREATE UNIQUE INDEX import_batches_idempotency
    ON reliable_imports.import_batches (coalesce(created_by, ''), idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX import_batches_lineage ON reliable_imports.import_batches (root_batch_id, id);
CREATE INDEX import_batches_type ON reliable_imports.import_batches (batch_type, id);
CREATE INDEX import_batches_file
    ON reliable_imports.import_batches (batch_type, source_sha256) WHERE source_sha256 IS NOT NULL;

CREATE INDEX import_batches_unannounced
    ON reliable_imports.import_batches (id) WHERE finished_at IS NOT NULL AND announced_at IS NULL;

CREATE INDEX import_batches_enqueued
    ON reliable_imports.import_batches (id) WHERE enqueued_at IS NOT NULL AND finished_at IS NULL;

CREATE TABLE reliable_imports.import_batch_items (
    batch_id         uuid NOT NULL,
    item_number      integer NOT NULL,
    status           text NOT NULL DEFAULT 'pending'
                     CHECK (status IN ('pending', 'completed', 'skipped', 'failed')),
    attempts         integer NOT NULL DEFAULT 0,    -- stored tries: a settled outcome, or a stored retry
    source_data      jsonb,                         -- null only for a record that jsonb cannot hold
    raw              bytea,                         -- such a record, as it came
    source_line      bigint,                        -- the line of the file on which the record starts
    item_key         text,
    root_item_number integer,                       -- the number in the root batch; null there
    due_at           timestamptz,                   -- not before; set by a stored retry
    target_table     text,                          -- what the processor says it wrote
    target_id        text,
    processed_data   jsonb,
    skip_reason      text,
    error_kind       text,
    error_type       text,
    error_message    text,
    error_sqlstate   text,
    error_constraint text,
    error_table      text,
    error_column     text,
    error_detail     text,
    error_hint       text,
    error_traceback  text,                          -- the user's frames
    error_fields     jsonb,                         -- validation: location, message and type of each field error
    error_group      text,                          -- the same for failures with the same cause, across batches
    reprocessed_by   uuid,                          -- the batch that tries this record again
    started_at       timestamptz,
    finished_at      timestamptz,
    PRIMARY KEY (batch_id, item_number)
) WITH (fillfactor = 85);

-- Settling a completed item leaves error_group null, so the update stays HOT.
CREATE INDEX import_batch_items_groups
    ON reliable_imports.import_batch_items (batch_id, error_group, item_number) WHERE error_group IS NOT NULL;

CREATE TABLE reliable_imports.import_batch_ranges (
    batch_id    uuid NOT NULL,
    first_item  integer NOT NULL,
    last_item   integer NOT NULL CHECK (last_item >= first_item),
    state       text NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'leased', 'deferred', 'done')),
    epoch       integer NOT NULL DEFAULT 0,         -- raised by each claim; fences the holder's statements
    crashes     integer NOT NULL DEFAULT 0,         -- how often a lease ran out
    worker_id   uuid,
    lease_until timestamptz,
    not_before  timestamptz,                        -- all that is left are retries that are due later
    completed   integer NOT NULL DEFAULT 0,
    skipped     integer NOT NULL DEFAULT 0,
    failed      integer NOT NULL DEFAULT 0,
    groups      jsonb NOT NULL DEFAULT '{}',        -- failed items by error_group
    PRIMARY KEY (batch_id, first_item)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE TABLE reliable_imports.import_logs (
    batch_id    uuid NOT NULL,
    log_id      bigint GENERATED ALWAYS AS IDENTITY,
    item_number integer,                            -- null: about the batch
    level       text NOT NULL CHECK (level IN ('debug', 'info', 'warning', 'error')),
    message     text NOT NULL,
    details     jsonb,
    logged_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (batch_id, log_id)
);

CREATE INDEX import_logs_items ON reliable_imports.import_logs (batch_id, item_number, log_id)
    WHERE item_number IS NOT NULL;
