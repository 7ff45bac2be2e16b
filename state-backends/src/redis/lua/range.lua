-- ARGV: from where, up to where, how many at the most. Returns how many there were.
local no = refused()
if no then return no end
local fields = redis.call('ZRANGEBYLEX', KEYS[3], ARGV[4], ARGV[5], 'LIMIT', '0', ARGV[6])
save(fields)
remove(fields)
applied('1')
return {'ok', tostring(#fields)}
