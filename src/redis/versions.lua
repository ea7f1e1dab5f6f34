-- KEYS: rows, and nothing else; no arguments. Replies: now, then of each key its floor, its version and the
-- end of its use; an empty version where there is no entry, 'foreign' where there is no row of ours.

local clock = redis.call('TIME')
local reply = { string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000)) }
local at = 1
for _, key in ipairs(KEYS) do
    local raw = redis.pcall('HMGET', key, 'floor', 'ver', 'u')
    if not raw.err then
        reply[at + 1], reply[at + 2], reply[at + 3] = raw[1] or '0', raw[2] or '', raw[3] or ''
    elseif raw.err:find('WRONGTYPE', 1, true) then
        reply[at + 1], reply[at + 2], reply[at + 3] = '0', 'foreign', ''
    else
        return raw
    end
    at = at + 3
end
return reply
