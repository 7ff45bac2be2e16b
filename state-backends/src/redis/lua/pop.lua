-- Takes back a part of a log that was not finished. ARGV: how many fields. Returns how many are left.
local no = refused()
if no then return no end
local page = redis.call('HRANDFIELD', KEYS[4], ARGV[4], 'WITHVALUES')
local fields = {}
for i = 1, #page, 2 do fields[#fields + 1] = page[i] end
put_back(page)
many('HDEL', KEYS[4], fields)
local left = redis.call('HLEN', KEYS[4])
redis.call('HSET', KEYS[1], 'seq', ARGV[2])
if left == 0 then redis.call('HSET', KEYS[1], 'top', tonumber(ARGV[3]) - 1, 'open', '0') end
return {'ok', tostring(left)}
