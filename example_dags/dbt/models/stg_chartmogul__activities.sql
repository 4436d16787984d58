-- An activity a row, with types. Columns are named here, so that a new one of the export changes nothing until it is
-- wanted; their names are those of your export's header.
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
