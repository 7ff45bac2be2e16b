-- KEYS: meta, positions, logs that nobody needs. ARGV: attempt, the last of these logs, marks that nobody needs.
local meta = redis.call('HMGET', KEYS[1], 'fence', 'floor')
if not meta[1] or tonumber(meta[1]) > tonumber(ARGV[1]) then return {'ok'} end
if tonumber(ARGV[2]) > tonumber(meta[2]) then redis.call('HSET', KEYS[1], 'floor', ARGV[2]) end
for i = 3, #KEYS do redis.call('UNLINK', KEYS[i]) end
for i = 3, #ARGV do redis.call('HDEL', KEYS[2], ARGV[i]) end
return {'ok'}
