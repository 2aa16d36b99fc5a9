-- Made so that every mistake shows: nothing in here is unique.
CREATE TABLE ledger (batch_id uuid, number integer, worker integer, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE flights (batch_id uuid, number integer, carrier text, flight integer, origin text, dest text, distance integer);
CREATE TABLE accounts (id integer PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO accounts SELECT n, 0 FROM generate_series(0, 9999) AS n;
CREATE TABLE hooks (batch_id uuid, hook text, completed integer, skipped integer, failed integer);
CREATE TABLE limits (id integer PRIMARY KEY, most bigint NOT NULL);
INSERT INTO limits VALUES (1, 1000000);
CREATE TABLE spill (batch_id uuid, number integer, filler text);
CREATE INDEX ON ledger (at);
