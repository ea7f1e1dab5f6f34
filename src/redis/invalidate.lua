-- ARGV: 2 rejected digest, or '' for whatever there is. Replies: floor, then 1 when something was
-- dropped.

local row = load_row()
local dropped
if ARGV[2] ~= '' then
    dropped = reject(row, ARGV[2]) == 0
else
    dropped = row.ver > 0 or live_lease() ~= nil
    -- A version that no mint ever gets: above the live lease's, and that of one that ran out.
    drop(row, next_version(row, 0))
end
return { digits(row.floor), dropped and '1' or '0' }
