-- ARGV: 2 secret, 3 version, 4 length in ms. Replies 1, or 0 when the lease is no longer ours.

local held = live_lease()
if held and held.secret == ARGV[2] and held.version == tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[4])
    return 1
end
return 0
