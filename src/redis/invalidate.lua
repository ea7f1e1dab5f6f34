-- ARGV: 3 rejected digest, or '' for whatever there is, 4 what the caller has seen: of the rejected one its version
-- or 0, else the highest of any key. Replies: now, floor, then 1 when something was dropped.

local row = load_row()
local dropped
if ARGV[3] ~= '' then
    dropped = reject(row, ARGV[3], ARGV[4]) == 0
else
    dropped = row.ver > 0 or live_lease() ~= nil
    -- A version that no mint ever gets: above the live lease's, that of one that ran out, and what the caller
    -- has, which this server may have lost or never have heard of.
    drop(row, next_version(row, ARGV[4]))
end
return reply(row, dropped and '1' or '0')
