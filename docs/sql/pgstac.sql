-- Items of pgstac 0.9 and 0.10 as holdings. The search path must have pgstac where the view is made.
CREATE VIEW coverage_tiles AS
SELECT id                                                     AS scene_id,
       collection                                             AS sensor,
       datetime,
       (content -> 'properties' ->> 'eo:cloud_cover')::float8 AS cloud,
       geometry
FROM pgstac.items;
