-- What comes before the head of a claim: the answer while somebody else mints a key of which there is nothing
-- newer. A cold fleet asks for nothing else, and the head takes longer than this.
do
    local call = redis.call
    local held = call('GET', KEYS[2])
    if held and ARGV[7] == '' then
        local secret = held:match('^%x+')
        if secret ~= ARGV[3] and secret ~= ARGV[4] then
            local row, left = call('HMGET', KEYS[1], 'floor', 'ver'), call('PTTL', KEYS[2])
            local floor = row[1] or '0'
            local older = not row[2] or tonumber(row[2]) <= tonumber(ARGV[5])
            -- A longer one than the caller's has to be looked at, and so has a floor that is none.
            if older and left > 0 and left <= tonumber(ARGV[8]) and floor:find('^%d+$') then
                return { '', floor, 'busy', tostring(left) }
            end
        end
    end
end
