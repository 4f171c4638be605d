-- Datasets as ODC Explorer summarises them (schema cubedash), as holdings. It has no cloud, and may be behind the index.
CREATE VIEW coverage_tiles AS
SELECT s.id::text      AS scene_id,
       t.name          AS sensor,
       s.center_time   AS datetime,
       NULL::float8    AS cloud,
       s.footprint     AS geometry
FROM cubedash.dataset_spatial s
JOIN agdc.dataset_type t ON t.id = s.dataset_type_ref
JOIN agdc.dataset d ON d.id = s.id
WHERE d.archived IS NULL AND s.footprint IS NOT NULL;
