-- What records are called, so that they are recognised when they come again; and who of several batches may run.

-- The number (in the root batch) of the first item with the same key; null for that item itself, and where no processor
-- asks. An item that repeats a key is never skipped as unchanged: what stands before it in the batch may change the record.
ALTER TABLE reliable_imports.import_batch_items ADD COLUMN first_of_key integer;

-- The content with which each key was last completed, and by which item. Written in the statement that settles the item,
-- so that it is true exactly when the item's effects are; the last commit wins, whichever batch is older. It outlives the
-- batches: purging them takes nothing away from it. Leads with batch_type, for it belongs to no batch.
CREATE TABLE reliable_imports.import_item_keys (
    batch_type     text NOT NULL,
    item_key       text NOT NULL,
    content_sha256 bytea NOT NULL,                  -- of the processor's version, U+001F and the record as jsonb writes it
    batch_id       uuid NOT NULL,
    item_number    integer NOT NULL,
    PRIMARY KEY (batch_type, item_key)
) WITH (fillfactor = 85);

-- Of the types whose processors say only_one: the batch that may run. It is another's turn once that batch has ended, or
-- has been seen paused, cancelled or failed, with no lease left, for some seconds. Leads with batch_type: a row is a type.
CREATE TABLE reliable_imports.import_only_one (
    batch_type   text PRIMARY KEY,
    batch_id     uuid NOT NULL,
    vacant_since timestamptz                        -- when somebody who waits has first seen that nothing of it runs
);
