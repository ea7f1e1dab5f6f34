-- ARGV: 2 secret, 3 secret to take over or '', 4 newer than, 5 highest known, 6 rejected digest
-- or '', 7 length of the lease in ms.
-- Replies: floor, then value … | lease version | busy ms | backoff ms reason.

local row = load_row()
local wait
if ARGV[6] ~= '' then
    wait = reject(row, ARGV[6])
end
local floor = digits(row.floor)

if row.ver > tonumber(ARGV[4]) and now < row.s then
    return with_entry(row, 'value')
end

local held = live_lease()
if held then
    -- The reply to this very claim was lost.
    if held.secret == ARGV[2] then
        redis.call('PEXPIRE', KEYS[2], ARGV[7])
        return { floor, 'lease', digits(held.version) }
    end
    if held.secret ~= ARGV[3] then
        return { floor, 'busy', digits(held.left) }
    end
end

if wait and wait > 0 then
    return { floor, 'backoff', digits(wait), 'the token was rejected again too soon' }
end
-- A server whose clock was set back must not make a pause longer than it was meant to be; that of an
-- older release is at most the longest with its jitter.
local pause = row.retry_at - now
if pause > 0 and pause <= math.max(row.retry_for, MAX_PAUSE * 1.25) then
    return { floor, 'backoff', digits(pause), redis.call('HGET', KEYS[1], 'reason') or '' }
end

local version = digits(next_version(row, tonumber(ARGV[5])))
redis.call('SET', KEYS[2], ARGV[2] .. ':' .. version, 'PX', ARGV[7])
return { floor, 'lease', version }
