-- What was processed lately, and what is unfinished, is asked for each time somebody opens the dashboard. A batch gets its
-- time once, so that keeping this index costs nothing to speak of.

CREATE INDEX import_batches_finished ON reliable_imports.import_batches (finished_at);
