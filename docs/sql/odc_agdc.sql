-- Datasets of the Open Data Cube (schema agdc) that are not archived, as holdings. EO3 metadata: the outline is in the dataset's own CRS.
CREATE VIEW coverage_tiles AS
SELECT d.id::text                                                        AS scene_id,
       t.name                                                            AS sensor,
       (d.metadata -> 'properties' ->> 'datetime')::timestamptz          AS datetime,
       (d.metadata -> 'properties' ->> 'eo:cloud_cover')::float8         AS cloud,
       ST_Transform(
           ST_SetSRID(
               ST_GeomFromGeoJSON(d.metadata ->> 'geometry'),
               split_part(lower(d.metadata ->> 'crs'), 'epsg:', 2)::int
           ),
           4326
       )                                                                 AS geometry
FROM agdc.dataset d
JOIN agdc.dataset_type t ON t.id = d.dataset_type_ref
WHERE d.archived IS NULL;
