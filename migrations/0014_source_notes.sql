-- How a file was read, and what its owner should know about that: a guessed encoding, columns that nothing takes, lines that
-- are not in the file's encoding. Told by every summary of the batch.

ALTER TABLE reliable_imports.import_batches
    ADD COLUMN source_encoding text,
    ADD COLUMN notes text[] NOT NULL DEFAULT '{}';
