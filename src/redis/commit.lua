-- ARGV: see `publish`. Replies: floor, then accepted | superseded … | fenced.

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
local held = live_lease()
local ours = held and held.secret == ARGV[2]
if held and not ours and held.version > version then
    return { floor, 'fenced' }
end

if ours then
    redis.call('DEL', KEYS[2])
end
redis.call('HDEL', KEYS[1], 'fails', 'retry_at', 'retry_for', 'reason')
publish(row, version)
return { floor, 'accepted' }
