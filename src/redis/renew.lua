-- KEYS: the lease, and nothing else. ARGV: 1 secret, 2 version, 3 length in ms. Replies 1, or 0 when the
-- lease is no longer ours.

if redis.call('GET', KEYS[1]) == ARGV[1] .. ':' .. ARGV[2] then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return 1
end
return 0
