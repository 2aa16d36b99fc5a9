-- The batches, items and log lines that benchmarks/big_dashboard.py asks for.
WITH largest AS (SELECT id, total_items FROM reliable_imports.import_batches ORDER BY total_items DESC LIMIT 1)
SELECT 'largest' AS name, id, failed.item_number AS failed, log.log_id AS log
  FROM largest
 CROSS JOIN LATERAL (SELECT item_number FROM reliable_imports.import_batch_items
                      WHERE batch_id = id AND error_group IS NOT NULL AND item_number > total_items / 2
                      ORDER BY error_group, item_number LIMIT 1) failed
 CROSS JOIN LATERAL (SELECT log_id FROM reliable_imports.import_logs
                      WHERE batch_id = id ORDER BY log_id LIMIT 1 OFFSET 100) log
 UNION ALL
SELECT 'open', id, i.item_number, NULL
  FROM largest CROSS JOIN LATERAL (
       SELECT item_number FROM reliable_imports.import_batch_items
        WHERE batch_id = id AND error_group IS NOT NULL AND reprocessed_by IS NULL
        ORDER BY item_number DESC LIMIT 1) i
 UNION ALL
SELECT CASE status WHEN 'processing' THEN 'running' WHEN 'pending' THEN 'waiting' ELSE status END, id, NULL, NULL
  FROM reliable_imports.import_batches WHERE status IN ('processing', 'pending', 'cancelled')
 UNION ALL
(SELECT 'nothing', id, NULL, NULL FROM reliable_imports.import_batches WHERE status = 'failed'
  ORDER BY total_items DESC LIMIT 1)
 UNION ALL
(SELECT 'deep', id, NULL, NULL FROM reliable_imports.import_batches ORDER BY id DESC OFFSET (SELECT count(*) / 2 FROM reliable_imports.import_batches) LIMIT 1)
 UNION ALL
(SELECT 'repair', id, NULL, NULL FROM reliable_imports.import_batches WHERE parent_batch_id IN (SELECT id FROM largest))
 UNION ALL
(SELECT 'family', root_batch_id, NULL, NULL FROM reliable_imports.import_batches
  WHERE parent_batch_id IS NOT NULL AND parent_batch_id NOT IN (SELECT id FROM largest) LIMIT 1);
