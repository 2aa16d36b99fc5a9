-- Canaries whose rest is run by whoever finishes them: the few that are not decided are found by it.
CREATE INDEX import_batches_undecided_canaries
    ON reliable_imports.import_batches (id)
 WHERE options #>> '{canary,continues}' = 'true';
