-- Which item a worker was about to run, where an earlier worker had died. A mark is committed before the item begins, and
-- gone after it: what a dead worker leaves behind names the item that it died of. Few rows, and none in a normal run.

CREATE TABLE reliable_imports.import_crash_marks (
    batch_id    uuid NOT NULL,
    item_number integer NOT NULL,
    worker_id   uuid NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(), -- renewed while the worker lives
    PRIMARY KEY (batch_id, item_number, worker_id)
);
