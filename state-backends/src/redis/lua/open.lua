-- KEYS: meta, positions. ARGV: attempt, owner, mark to come back to ('': none; there may be nothing at all then).
local meta = redis.call('HMGET', KEYS[1], 'fence', 'owner', 'seq', 'top', 'open')
if not meta[1] then
  if ARGV[3] ~= '' then return {'gone'} end
  redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'owner', ARGV[2], 'seq', '0', 'top', '0', 'open', '0', 'floor', '0')
  return {'ok', '0', '0', '0', ''}
end
if tonumber(meta[1]) > tonumber(ARGV[1]) then return {'fenced', meta[2]} end
if meta[2] ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'owner', ARGV[2], 'seq', '0')
  meta[3] = '0'
end
return {'ok', meta[3], meta[4], meta[5], redis.call('HGET', KEYS[2], ARGV[3]) or ''}
