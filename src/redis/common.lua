-- The head of every script that changes something. KEYS: 1 the entry's row, 2 its lease, 3 meta, 4 the
-- change log; one hash tag, so one slot of a Cluster. ARGV: 1 the key's name in the log, 2 the caller's
-- clock in microseconds since 1970. Instants are milliseconds of this server's clock; a reply begins with
-- it, for whoever is told of an instant.

local DAY = 86400000
local MAX_PAUSE = 60000
local YEAR = 31536000000000
-- Lua counts exactly up to 2^53; what is left above is for the next versions.
local LAST = 9007194959773696

local clock = redis.call('TIME')
local micros = clock[1] * 1000000 + clock[2]
local now = math.floor(micros / 1000)

-- No version can be further ahead than a year: one that is was not issued by us, and believed it would end
-- a key for good, or all keys. Either clock may be wrong, so the later one counts.
local latest = math.min(math.max(micros, tonumber(ARGV[2])) + YEAR, LAST)

local function believed(version)
    version = tonumber(version) or 0
    return version >= 0 and version <= latest and version % 1 == 0 and version or 0
end

-- Lua's own conversion keeps 14 digits, and a version has 16.
local function digits(number)
    return string.format('%.0f', number)
end

-- The first six as a reply has them.
local FIELDS = {
    'ver', 'm', 'r', 'u', 'x', 'w', 'floor', 'digest', 's', 'fails', 'retry_at', 'retry_for', 'rejections',
    'reject_at', 'early',
}

-- Missing fields are zero; `ver` is zero when there is no entry, and never below `floor` otherwise.
local function load_row()
    local raw = redis.call('HMGET', KEYS[1], unpack(FIELDS))
    local row = { raw = raw }
    for i, name in ipairs(FIELDS) do
        row[name] = tonumber(raw[i]) or 0
    end
    row.digest, row.ver, row.floor = raw[8], believed(raw[1]), believed(raw[7])
    return row
end

-- The row outlives its entry by a day, and so does its floor.
local function keep(until_then)
    local ttl = math.max(until_then - now, 0) + DAY
    if redis.call('PTTL', KEYS[1]) < ttl then
        redis.call('PEXPIRE', KEYS[1], digits(ttl))
    end
end

local function live_lease()
    local held = redis.call('GET', KEYS[2])
    local secret, version = (held or ''):match('^(%x+):(%d+)$')
    return secret and { secret = secret, version = believed(version) }
end

-- The last write of a script: who follows the log finds everything in place. Version zero: nothing was
-- committed, but a floor was raised or a lease given back.
local function announce(version, floor)
    redis.call('XADD', KEYS[4], 'MAXLEN', '~', '10000', '*',
        'key', ARGV[1], 'version', digits(version), 'floor', digits(floor))
end

-- Above everything issued for any key, this key's floor and entry, what the caller has seen of any key, and
-- the time: the last makes versions grow even after FLUSHALL.
local function next_version(row, highest_known)
    local issued = believed(redis.call('HGET', KEYS[3], 'issued'))
    -- Two servers that take writes for a while, and whose clocks are behind what was issued, must not count in step.
    local step = 1 + micros % 1000
    local version = math.max(issued, row.floor, row.ver, believed(highest_known)) + step
    version = math.min(math.max(version, micros), LAST)
    redis.call('HSET', KEYS[3], 'issued', digits(version))
    return version
end

local function drop(row, floor)
    redis.call('HSET', KEYS[1], 'floor', digits(floor))
    redis.call('HDEL', KEYS[1], 'ver', 'digest', 'body', 'm', 'r', 'u', 'x', 's', 'w')
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
-- long. nil: it is not the present entry. `held`: its version where the caller has it, else 0.
local function reject(row, digest, held)
    local version = row.ver
    if version == 0 or row.digest ~= digest then
        version = believed(held)
        -- Above all that is stored: this server has lost it, and the caller or another host would give it back.
        if version <= row.ver or version < row.floor then
            return nil
        end
    -- It worked for long enough to show that issuer and endpoint are at one again; unless it was
    -- rejected all the while, too soon to be dropped.
    elseif now - row.m >= (row.u - row.m) / 2 and row.early ~= version then
        row.rejections = 0
    end
    if row.rejections > 0 then
        local pause = math.min(1000 * 2 ^ math.min(row.rejections - 1, 16), MAX_PAUSE)
        local wait = left(row.reject_at, pause)
        if wait > 0 then
            redis.call('HSET', KEYS[1], 'early', digits(version))
            return wait
        end
    end
    redis.call('HSET', KEYS[1], 'rejections', digits(row.rejections + 1), 'reject_at', digits(now))
    -- Not above a mint in flight: that one is already the answer to this rejection.
    drop(row, version + 1)
    return 0
end

local function reply(row, verdict, ...)
    return { digits(now), digits(row.floor), verdict, ... }
end

-- The entry's version, its instants and the minting by its minter's clock.
local function instants(row)
    local texts = {}
    for i = 1, 6 do
        texts[i] = row.raw[i] or ''
    end
    return unpack(texts)
end

local function with_entry(row, verdict)
    local answer = reply(row, verdict, instants(row))
    table.insert(answer, redis.call('HGET', KEYS[1], 'body') or '')
    return answer
end

-- For commit and restore. ARGV: 3 secret, 4 version, 5 digest, 6-10 what remains until minted, refresh,
-- usable, expires, servable; 11 the minting by the clock of whoever sends it, 12 body, as the client made
-- it.

-- The stored entry decides, where it is not older.
local function against_stored(row, version)
    if row.ver < version then
        return nil
    end
    if row.ver == version and row.digest == ARGV[5] then
        return reply(row, 'accepted', instants(row))
    end
    return with_entry(row, 'superseded')
end

-- `late`: by how much what remains has become less on the way here.
local function publish(row, version, late)
    local texts = {}
    for i = 6, 10 do
        texts[i - 5] = digits(now - late + ARGV[i])
    end
    local m, r, u, x, s = unpack(texts)
    redis.call('HSET', KEYS[1], 'ver', digits(version), 'floor', digits(row.floor),
        'digest', ARGV[5], 'body', ARGV[12], 'm', m, 'r', r, 'u', u, 'x', x, 's', s, 'w', ARGV[11])
    keep(tonumber(x))
    if believed(redis.call('HGET', KEYS[3], 'issued')) < version then
        redis.call('HSET', KEYS[3], 'issued', digits(version))
    end
    announce(version, row.floor)
    return reply(row, 'accepted', digits(version), m, r, u, x, ARGV[11])
end
