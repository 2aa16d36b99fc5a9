-- Nothing: its number is given to another change.
SELECT 1;
