-- One row for each activity, with types. The columns are listed, so a new column of the export changes nothing until you
-- add it. Replace their names with those in the header of your export.
select
    uuid as activity_id,
    date as occurred_at,
    type as activity_type,
    customer_uuid as customer_id,
    customer_name,
    cast(nullif(activity_mrr, '') as decimal(18, 2)) as mrr,
    cast(nullif(activity_mrr_movement, '') as decimal(18, 2)) as mrr_movement,
    currency,
    _loaded_at as loaded_at
from {{ source('chartmogul', 'activities') }}
