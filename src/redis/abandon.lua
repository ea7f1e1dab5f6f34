-- ARGV: 2 secret, 3 version, 4 base of the back-off in ms or '' for none, 5 jitter in permille,
-- 6 reason, 7 the least pause in ms.

local held = live_lease()
if not held or held.secret ~= ARGV[2] or held.version ~= tonumber(ARGV[3]) then
    return 0
end
redis.call('DEL', KEYS[2])
if ARGV[4] ~= '' then
    local row = load_row()
    local pause = math.min(ARGV[4] * 2 ^ math.min(row.fails, 16), MAX_PAUSE)
    pause = math.max(pause * (1 + ARGV[5] / 1000), tonumber(ARGV[7]) or 0)
    redis.call('HSET', KEYS[1], 'fails', digits(row.fails + 1), 'retry_at', digits(now + pause),
        'retry_for', digits(pause), 'reason', ARGV[6])
    keep(row.x)
end
return 1
