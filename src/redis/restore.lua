-- ARGV: see `publish`; the first question comes without timing and body, for mostly nothing is
-- missing. Replies: now, floor, then accepted … | superseded … | fenced | missing | older … (what would
-- be replaced). With the second question, ARGV[13] is the `now` of the first.

local row = load_row()
local version = tonumber(ARGV[4])

if version < row.floor or version > latest then
    return reply(row, 'fenced')
end
local decided = against_stored(row, version)
if decided then
    return decided
end
if not ARGV[12] then
    return row.ver > 0 and with_entry(row, 'older') or reply(row, 'missing')
end
-- What remains is counted from when the answer to the first question had arrived.
return publish(row, version, math.max(now - ARGV[13], 0))
