-- Datasets of the Open Data Cube's postgis driver (schema odc) that are not archived, as holdings; the index in EPSG:4326 must be there.
CREATE VIEW coverage_tiles AS
SELECT d.id::text                                                AS scene_id,
       p.name                                                    AS sensor,
       lower(w.search_val)                                       AS datetime,
       (d.metadata -> 'properties' ->> 'eo:cloud_cover')::float8 AS cloud,
       s.extent                                                  AS geometry
FROM odc.dataset d
JOIN odc.product p ON p.id = d.product_ref
JOIN odc.spatial_4326 s ON s.dataset_ref = d.id
JOIN odc.dataset_search_datetime w ON w.dataset_ref = d.id AND w.search_key = 'time'
WHERE d.archived IS NULL;
