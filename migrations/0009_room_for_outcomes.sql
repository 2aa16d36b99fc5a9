-- Nearly every item is updated exactly once, when it settles. With room for a second version of each row on its page the
-- update stays there (HOT): one WAL record instead of three, and no entry in any index. The table grows no larger by it:
-- without the room the second versions went to pages of their own.

ALTER TABLE reliable_imports.import_batch_items SET (fillfactor = 45);
