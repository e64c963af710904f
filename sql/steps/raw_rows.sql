-- Raw rows, as collected, of the ids that findings are about. `public.table_name` stands for the table and `$ids` for
-- the list of ids.
SELECT *
FROM public.table_name
WHERE snapshot = $snapshot AND strict_id IN ($ids)
