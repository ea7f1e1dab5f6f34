-- ARGV: 3 secret, 4 secret to take over or '', 5 newer than, 6 highest known of any key, 7 rejected digest
-- or '', 8 length of the lease in ms.
-- Replies: now, floor, then value … | lease version | busy ms | backoff ms reason.

local row = load_row()
local wait
if ARGV[7] ~= '' then
    wait = reject(row, ARGV[7], 0)
end

if row.ver > tonumber(ARGV[5]) and now < row.s then
    return with_entry(row, 'value')
end

local longest = tonumber(ARGV[8])
local held = live_lease()
if held then
    -- The reply to this very claim was lost.
    if held.secret == ARGV[3] then
        redis.call('PEXPIRE', KEYS[2], ARGV[8])
        return reply(row, 'lease', digits(held.version))
    end
    if held.secret ~= ARGV[4] then
        -- No lease is longer than the longest that was given. On a server whose clock is behind that of the one
        -- it took over from it seems to be, by as much.
        local left = redis.call('PTTL', KEYS[2])
        longest = math.max(longest, tonumber(redis.call('HGET', KEYS[3], 'lease')) or 0)
        if left < 0 or left > longest then
            redis.call('PEXPIRE', KEYS[2], digits(longest))
            left = longest
        end
        return reply(row, 'busy', digits(left))
    end
end

if wait and wait > 0 then
    return reply(row, 'backoff', digits(wait), 'the token was rejected again too soon')
end
-- A server whose clock was set back must not make a pause longer than it was meant to be; that of an
-- older release, which does not say, is at most the longest with its jitter.
local pause = row.retry_at - now
if pause > 0 and pause <= (row.retry_for > 0 and row.retry_for or MAX_PAUSE * 1.25) then
    return reply(row, 'backoff', digits(pause), redis.call('HGET', KEYS[1], 'reason') or '')
end

local version = digits(next_version(row, ARGV[6]))
redis.call('SET', KEYS[2], ARGV[3] .. ':' .. version, 'PX', ARGV[8])
if (tonumber(redis.call('HGET', KEYS[3], 'lease')) or 0) < longest then
    redis.call('HSET', KEYS[3], 'lease', ARGV[8])
end
return reply(row, 'lease', version)
