-- First of all in every script that changes something. A server that was demoted goes on answering who was
-- connected to it. What it has is no news any more, so it is asked to write, even where nothing is to be written.
-- One that writes nothing for another reason is ours.

local refusal = redis.pcall('HDEL', KEYS[3], '-')
if type(refusal) == 'table' and refusal.err and refusal.err:find('READONLY', 1, true) then
    return { err = 'READONLY this server was demoted' }
end
