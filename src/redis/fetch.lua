-- KEYS: rows, and nothing else; no arguments. Replies, for each: floor, then value … | none |
-- foreign. One key that is no row of ours must not keep the others from being compared.

local replies = {}
for i, key in ipairs(KEYS) do
    local raw = redis.pcall('HMGET', key, 'floor', 'ver', 'm', 'r', 'u', 'x', 'body')
    local reply = { raw[1] or '0', 'none' }
    if raw.err then
        if not raw.err:find('WRONGTYPE', 1, true) then
            return raw
        end
        reply[2] = 'foreign'
    elseif raw[7] then
        reply = { raw[1] or '0', 'value', raw[2] }
        for field = 3, 6 do
            table.insert(reply, digits((tonumber(raw[field]) or 0) - now))
        end
        table.insert(reply, raw[7])
    end
    replies[i] = reply
end
return replies
