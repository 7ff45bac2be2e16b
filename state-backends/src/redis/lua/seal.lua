-- KEYS[5]: positions. ARGV: the mark of the position that the log ends at.
local no = refused()
if no then return no end
redis.call('HSET', KEYS[5], ARGV[4], ARGV[3])
applied('0')
return {'ok'}
