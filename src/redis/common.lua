-- The head of every script. KEYS: 1 the entry's row, 2 its lease, 3 meta, 4 the change log; one
-- hash tag, so one slot of a Cluster. ARGV[1] is the key's name in the log.
-- Instants are milliseconds of this server's clock and never leave it: replies say what remains.

local DAY = 86400000
local MAX_PAUSE = 60000

local clock = redis.call('TIME')
local micros = clock[1] * 1000000 + clock[2]
local now = math.floor(micros / 1000)

-- Lua's own conversion keeps 14 digits, and a version has 16.
local function digits(number)
    return string.format('%.0f', number)
end

local NUMBERS = {
    'ver', 'floor', 'm', 'r', 'u', 'x', 's', 'fails', 'retry_at', 'retry_for', 'rejections', 'reject_at',
    'early',
}

-- Missing fields are zero; `ver` is zero when there is no entry, and never below `floor` otherwise.
local function load_row()
    local row, raw = {}, redis.call('HMGET', KEYS[1], 'digest', unpack(NUMBERS))
    row.digest = raw[1]
    for i, name in ipairs(NUMBERS) do
        row[name] = tonumber(raw[i + 1]) or 0
    end
    return row
end

-- The row outlives its entry by a day, and so does its floor.
local function keep(expires_at)
    local ttl = math.max(expires_at - now, 0) + DAY
    if redis.call('PTTL', KEYS[1]) < ttl then
        redis.call('PEXPIRE', KEYS[1], digits(ttl))
    end
end

local function live_lease()
    local held = redis.call('GET', KEYS[2])
    if not held then
        return nil
    end
    local secret, version = held:match('^(%x+):(%d+)$')
    return { secret = secret, version = tonumber(version), left = redis.call('PTTL', KEYS[2]) }
end

local function issued()
    return tonumber(redis.call('HGET', KEYS[3], 'issued')) or 0
end

-- Above everything issued for any key, this key's floor and entry, what the caller has seen, and
-- the time: the last makes versions grow even after FLUSHALL.
local function next_version(row, highest_known)
    local version = math.max(issued(), row.floor, row.ver, highest_known) + 1
    version = math.max(version, micros)
    redis.call('HSET', KEYS[3], 'issued', digits(version))
    return version
end

-- The last write of a script: who follows the log finds everything in place.
local function announce(version, floor)
    redis.call('XADD', KEYS[4], 'MAXLEN', '~', '10000', '*',
        'key', ARGV[1], 'version', digits(version), 'floor', digits(floor))
end

local function drop(row, floor)
    redis.call('HSET', KEYS[1], 'floor', digits(floor))
    redis.call('HDEL', KEYS[1], 'ver', 'digest', 'body', 'm', 'r', 'u', 'x', 's')
    keep(row.x)
    row.ver, row.floor = 0, floor
    announce(0, floor)
end

-- What is left of a pause. A server whose clock was set back must not turn a minute into a day.
local function left(started_at, pause)
    local wait = started_at + pause - now
    return (wait > 0 and wait <= pause) and wait or 0
end

-- 0: dropped. Above: another one was dropped a moment ago, so this one stays in force for that
-- long. nil: it is not the present entry.
local function reject(row, digest)
    if row.ver == 0 or row.digest ~= digest then
        return nil
    end
    -- It worked for long enough to show that issuer and endpoint are at one again; unless it was
    -- rejected all the while, too soon to be dropped.
    if now - row.m >= (row.u - row.m) / 2 and row.early ~= row.ver then
        row.rejections = 0
    end
    if row.rejections > 0 then
        local pause = math.min(1000 * 2 ^ math.min(row.rejections - 1, 16), MAX_PAUSE)
        local wait = left(row.reject_at, pause)
        if wait > 0 then
            redis.call('HSET', KEYS[1], 'early', digits(row.ver))
            return wait
        end
    end
    redis.call('HSET', KEYS[1], 'rejections', digits(row.rejections + 1), 'reject_at', digits(now))
    -- Not above a mint in flight: that one is already the answer to this rejection.
    drop(row, row.ver + 1)
    return 0
end

local function with_entry(row, verdict)
    return {
        digits(row.floor), verdict, digits(row.ver),
        digits(row.m - now), digits(row.r - now), digits(row.u - now), digits(row.x - now),
        redis.call('HGET', KEYS[1], 'body'),
    }
end

-- For commit and restore. ARGV: 2 secret, 3 version, 4 digest, 5-9 what remains until minted,
-- refresh, usable, expires, servable; 10 body, as the client made it.

-- The stored entry decides, where it is not older.
local function against_stored(row, version)
    if row.ver < version then
        return nil
    end
    if row.ver == version and row.digest == ARGV[4] then
        return { digits(row.floor), 'accepted' }
    end
    return with_entry(row, 'superseded')
end

-- `late`: by how much what remains has become less on the way here.
local function publish(row, version, late)
    local from = now - late
    redis.call('HSET', KEYS[1], 'ver', digits(version), 'floor', digits(row.floor),
        'digest', ARGV[4], 'body', ARGV[10],
        'm', digits(from + ARGV[5]), 'r', digits(from + ARGV[6]), 'u', digits(from + ARGV[7]),
        'x', digits(from + ARGV[8]), 's', digits(from + ARGV[9]))
    keep(from + ARGV[8])
    if issued() < version then
        redis.call('HSET', KEYS[3], 'issued', digits(version))
    end
    announce(version, row.floor)
end
