-- ARGV: see `publish`; the first question comes without timing and body, for mostly nothing is
-- missing. Replies: floor, then accepted | superseded … | fenced | missing | older … (what would be
-- replaced).

local row = load_row()
local floor = digits(row.floor)
local version = tonumber(ARGV[3])

if version < row.floor then
    return { floor, 'fenced' }
end
local decided = against_stored(row, version)
if decided then
    return decided
end
if not ARGV[10] then
    return row.ver > 0 and with_entry(row, 'older') or { floor, 'missing' }
end
publish(row, version, 0)
return { floor, 'accepted' }
