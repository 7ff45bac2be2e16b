-- Takes back a part of a finished log, which stays, and notes it in the log of the step. KEYS[5]: the one that is taken
-- back. ARGV: where to go on, about how many fields. Returns where to go on then.
local no = refused()
if no then return no end
local page = redis.call('HSCAN', KEYS[5], ARGV[4], 'COUNT', ARGV[5])
local fields = {}
for i = 1, #page[2], 2 do fields[#fields + 1] = page[2][i] end
save(fields)
put_back(page[2])
applied('1')
return {'ok', page[1]}
