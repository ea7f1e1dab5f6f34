-- ARGV: see `publish`; the first question comes without timing and body, for mostly nothing is
-- missing. Replies: floor, then accepted | superseded … | fenced | missing now | older … now (what
-- would be replaced). With the second question, ARGV[11] is the `now` of the first.

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
    local reply = row.ver > 0 and with_entry(row, 'older') or { floor, 'missing' }
    table.insert(reply, digits(now))
    return reply
end
-- What remains is counted from before the first question.
publish(row, version, math.max(now - ARGV[11], 0))
return { floor, 'accepted' }
