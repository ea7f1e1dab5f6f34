-- ARGV: 3 secret, 4 version, 5 base of the back-off in ms or '' for none, 6 jitter in permille,
-- 7 reason, 8 the least pause in ms.

local held = live_lease()
if not held or held.secret ~= ARGV[3] or held.version ~= tonumber(ARGV[4]) then
    return 0
end
redis.call('DEL', KEYS[2])
local row = load_row()
local pause = 0
if ARGV[5] ~= '' then
    pause = math.min(ARGV[5] * 2 ^ math.min(row.fails, 16), MAX_PAUSE)
    pause = math.max(pause * (1 + ARGV[6] / 1000), tonumber(ARGV[8]) or 0)
    redis.call('HSET', KEYS[1], 'fails', digits(row.fails + 1), 'retry_at', digits(now + pause),
        'retry_for', digits(pause), 'reason', ARGV[7])
    keep(math.max(row.x, now + pause))
end
-- Who waits for the lease need not ask whether it is free.
announce(0, row.floor)
return math.floor(pause)
