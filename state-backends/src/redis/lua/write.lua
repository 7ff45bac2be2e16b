-- ARGV: how many puts, field and value of each, fields of the deletes.
local no = refused()
if no then return no end
local pairs, fields, gone = {}, {}, {}
local puts = 4 + 2 * tonumber(ARGV[4])
for i = 5, puts, 2 do
  fields[#fields + 1] = ARGV[i]
  pairs[#pairs + 1] = ARGV[i]
  pairs[#pairs + 1] = ARGV[i + 1]
end
for i = puts + 1, #ARGV do
  fields[#fields + 1] = ARGV[i]
  gone[#gone + 1] = ARGV[i]
end
put(pairs, save(fields))
remove(gone)
applied('1')
return {'ok'}
