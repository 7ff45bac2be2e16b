-- KEYS: meta, everything else of the key group. ARGV: attempt. Nothing that this or a newer attempt has opened.
local fence = redis.call('HGET', KEYS[1], 'fence')
if fence and tonumber(fence) >= tonumber(ARGV[1]) then return {'kept'} end
redis.call('UNLINK', unpack(KEYS))
return {'ok'}
