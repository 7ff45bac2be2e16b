-- KEYS: meta, base, order, log of the step, and others. ARGV: owner, number of the step, number of the log.

-- A step is applied after the one before it, and again as often as it comes until the next one: each of them has the
-- same outcome then. An older one that comes late is refused.
local function refused()
  local meta = redis.call('HMGET', KEYS[1], 'owner', 'seq')
  if not meta[1] then return {'gone'} end
  if meta[1] ~= ARGV[1] then return {'fenced', meta[1]} end
  local ahead = tonumber(ARGV[2]) - tonumber(meta[2])
  if ahead ~= 0 and ahead ~= 1 then return {'lost', meta[2]} end
end

local function applied(open)
  redis.call('HSET', KEYS[1], 'seq', ARGV[2], 'top', ARGV[3], 'open', open)
end

-- Lua's stack has room for some 8,000 arguments.
local function many(command, key, arguments)
  for from = 1, #arguments, 2000 do
    redis.call(command, key, unpack(arguments, from, math.min(from + 1999, #arguments)))
  end
end

-- Notes in the log what these fields have, unless it knows what they had before. Returns those that have nothing.
local function save(fields)
  local absent = {}
  for from = 1, #fields, 2000 do
    local till = math.min(from + 1999, #fields)
    local had = redis.call('HMGET', KEYS[2], unpack(fields, from, till))
    local known = redis.call('EXISTS', KEYS[4]) == 1 and redis.call('HMGET', KEYS[4], unpack(fields, from, till))
    local log = {}
    for i = 1, #had do
      local field = fields[from + i - 1]
      if not had[i] then absent[field] = true end
      if not (known and known[i]) then
        log[#log + 1] = field
        log[#log + 1] = had[i] and '+' .. had[i] or '-'
      end
    end
    many('HSET', KEYS[4], log)
  end
  return absent
end

local function remove(fields)
  many('HDEL', KEYS[2], fields)
  many('ZREM', KEYS[3], fields)
end

local function put(pairs, absent)
  many('HSET', KEYS[2], pairs)
  local members = {}
  for i = 1, #pairs, 2 do
    if not absent or absent[pairs[i]] then
      members[#members + 1] = '0'
      members[#members + 1] = pairs[i]
    end
  end
  many('ZADD', KEYS[3], members)
end

-- Gives fields the values that a log has of them.
local function put_back(log)
  local pairs, gone = {}, {}
  for i = 1, #log, 2 do
    if log[i + 1]:sub(1, 1) == '+' then
      pairs[#pairs + 1] = log[i]
      pairs[#pairs + 1] = log[i + 1]:sub(2)
    else
      gone[#gone + 1] = log[i]
    end
  end
  put(pairs)
  remove(gone)
end

