-- KEYS: the lease, and nothing else. ARGV: 1 secret, 2 version, 3 length in ms. Replies 1, or 0 when the
-- lease is no longer ours.

if redis.call('GET', KEYS[1]) == ARGV[1] .. ':' .. ARGV[2] then
    local answer = redis.pcall('PEXPIRE', KEYS[1], ARGV[3])
    if type(answer) == 'table' and answer.err then
        -- See the head of the others: not every server says so in words that a client takes for an error of its own.
        return answer.err:find('READONLY', 1, true) and { err = 'READONLY this server was demoted' } or answer
    end
    return 1
end
return 0
