-- What was changed by hand, and what was imported before.

-- Each change of a failed item's record: what it was before, for ever visible beside what it is.
CREATE TABLE reliable_imports.import_item_edits (
    batch_id    uuid NOT NULL,
    item_number integer NOT NULL,
    edit_id     bigint GENERATED ALWAYS AS IDENTITY,
    source_data jsonb,                              -- the record before; null for one that could not be read
    raw         bytea,                              -- that one, as it came
    actor       text,
    reason      text,
    edited_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (batch_id, item_number, edit_id)
);
