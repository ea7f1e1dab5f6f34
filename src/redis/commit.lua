-- ARGV: see `publish`; 13 when the lease was given, by the clock of the server that gave it. Replies: now, floor,
-- then accepted … | superseded … | fenced.

local row = load_row()
local version = tonumber(ARGV[4])

if version < row.floor or version > latest then
    return reply(row, 'fenced')
end
local decided = against_stored(row, version)
if decided then
    return decided
end
local held = live_lease()
local ours = held and held.secret == ARGV[3]
if held and not ours and held.version > version then
    return reply(row, 'fenced')
end

if ours then
    redis.call('DEL', KEYS[2])
end
redis.call('HDEL', KEYS[1], 'fails', 'retry_at', 'retry_for', 'reason')
-- A server that was frozen finds this in its buffer when it goes on, and what remained then no longer does. The
-- mint began right after the lease was given.
return publish(row, version, math.max(now + ARGV[6] - ARGV[13], 0))
