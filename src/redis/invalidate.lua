-- ARGV: 3 rejected digest, or '' for whatever there is. Replies: now, floor, then 1 when something was
-- dropped.

local row = load_row()
local dropped
if ARGV[3] ~= '' then
    dropped = reject(row, ARGV[3]) == 0
else
    dropped = row.ver > 0 or live_lease() ~= nil
    -- A version that no mint ever gets: above the live lease's, and that of one that ran out.
    drop(row, next_version(row, 0))
end
return reply(row, dropped and '1' or '0')
