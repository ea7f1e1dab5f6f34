-- KEYS: rows, and nothing else; no arguments. Replies: now, then of each key: floor, then value … | none |
-- foreign. One key that is no row of ours must not keep the others from being compared.

local clock = redis.call('TIME')
local replies = { string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000)) }
for i, key in ipairs(KEYS) do
    local raw = redis.pcall('HMGET', key, 'floor', 'ver', 'm', 'r', 'u', 'x', 'w', 'body')
    local floor = raw[1] or '0'
    if raw.err then
        if not raw.err:find('WRONGTYPE', 1, true) then
            return raw
        end
        replies[i + 1] = { floor, 'foreign' }
    elseif raw[2] and raw[8] then
        replies[i + 1] = { floor, 'value', raw[2], raw[3], raw[4], raw[5], raw[6], raw[7] or '', raw[8] }
    else
        replies[i + 1] = { floor, 'none' }
    end
end
return replies
