/**
 * A task queue with results, written by hand over the bare `node-redis`: one script for each batch.
 *
 * A task is a hash: its record and its body. The queue is a list of ids. A claim is a set of the ids that it holds, and
 * its lease an entry of a sorted set.
 */
import { createClient } from "redis"
import { type ClaimedTask, type FloorPlusStore, makeSession, promises, type Result } from "../floorPlus.ts"
import { parseLocation } from "../redis.ts"
import type { System } from "../system.ts"

const retentionMillis = 24 * 3600 * 1000

const prelude = `local p = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function taskKey(id) return p .. ':task:' .. id end
local function claimKey(token) return p .. ':claim:' .. token end
`

/** Takes a channel for the results or an empty text, and an id and a body for each task. */
const enqueueTasks = `${prelude}
local added = {}
for i = 2, #ARGV, 2 do
  local key = taskKey(ARGV[i])
  if redis.call('EXISTS', key) == 0 then
    redis.call('HSET', key, 'body', ARGV[i + 1], 'reply', ARGV[1], 'enqueued', now)
    added[#added + 1] = ARGV[i]
  end
end
if #added > 0 then
  redis.call('RPUSH', p .. ':ready', unpack(added))
  if redis.call('DEL', p .. ':idle') == 1 then redis.call('PUBLISH', p .. ':messages', '') end
end`

/** Takes a token, a number of tasks and the lease. Returns id, body and channel of each task. */
const claimTasks = `${prelude}
local token, max = ARGV[1], tonumber(ARGV[2])
local lapsed = redis.call('ZRANGE', p .. ':claims', '-inf', now, 'BYSCORE', 'LIMIT', 0, 1)[1]
if lapsed then
  for _, id in ipairs(redis.call('SMEMBERS', claimKey(lapsed))) do
    redis.call('HDEL', taskKey(id), 'state')
    redis.call('RPUSH', p .. ':ready', id)
  end
  redis.call('DEL', claimKey(lapsed))
  redis.call('ZREM', p .. ':claims', lapsed)
end
local ids = redis.call('LPOP', p .. ':ready', max) or {}
if #ids < max then redis.call('SET', p .. ':idle', 1) end
if #ids == 0 then return ids end
local claimed = {}
for _, id in ipairs(ids) do
  local task = redis.call('HMGET', taskKey(id), 'body', 'reply', 'attempt')
  redis.call('HSET', taskKey(id), 'state', 1, 'attempt', (task[3] or 0) + 1, 'token', token, 'started', now)
  claimed[#claimed + 1] = id
  claimed[#claimed + 1] = task[1]
  claimed[#claimed + 1] = task[2]
end
redis.call('SADD', claimKey(token), unpack(ids))
redis.call('ZADD', p .. ':claims', now + ARGV[3], token)
return claimed`

/** Takes the retention, and id, token, result and channel of each task. Returns how many results it stored. */
const settleTasks = `${prelude}
local count, tokens, pushed = 0, {}, {}
for i = 2, #ARGV, 4 do
  local id, token, result, reply = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if redis.call('SREM', claimKey(token), id) == 1 then
    redis.call('HSET', taskKey(id), 'state', 2, 'result', result, 'finished', now)
    redis.call('PEXPIRE', taskKey(id), ARGV[1])
    count = count + 1
    tokens[token] = true
    if reply ~= '' then
      pushed[reply] = pushed[reply] or {}
      table.insert(pushed[reply], { id, result })
    end
  end
end
for token in pairs(tokens) do
  if redis.call('EXISTS', claimKey(token)) == 0 then redis.call('ZREM', p .. ':claims', token) end
end
for reply, results in pairs(pushed) do redis.call('PUBLISH', reply, cjson.encode(results)) end
return count`

/** Takes the lease and tokens. */
const renewClaims = `${prelude}
for i = 2, #ARGV do redis.call('ZADD', p .. ':claims', 'XX', now + ARGV[1], ARGV[i]) end`

/** Opens the store. */
export const openStore = async (location: string): Promise<FloorPlusStore> => {
  const { prefix, url } = parseLocation(location)
  const connect = async () => {
    const client = createClient({ url, RESP: 2 })
    client.on("error", (error) => console.error(error))
    await client.connect()
    return client
  }
  const client = await connect()
  let subscriber: Promise<typeof client> | undefined
  const subscribe = async (channel: string, receive: (text: string) => void) =>
    (await (subscriber ??= connect())).subscribe(channel, receive)
  const load = async (lua: string) => {
    const sha = (await client.sendCommand(["SCRIPT", "LOAD", lua])) as string
    return (args: ReadonlyArray<string>): Promise<unknown> =>
      client.sendCommand(["EVALSHA", sha, "1", prefix, ...args])
  }
  const enqueue = await load(enqueueTasks)
  const claim = await load(claimTasks)
  const settle = await load(settleTasks)
  const renew = await load(renewClaims)

  const results = `${prefix}:results:${process.pid}`
  let replyTo = ""
  let onMessage = () => {}
  let listening: Promise<void> | undefined
  let lastToken = 0

  return {
    splitsBatches: true,
    enqueue: async (tasks) => void (await enqueue([replyTo, ...tasks.flatMap(({ body, id }) => [id, body])])),
    claim: async (max, leaseMillis) => {
      const token = `${process.pid}-${++lastToken}`
      const claimed = (await claim([token, `${max}`, `${leaseMillis}`])) as ReadonlyArray<string>
      return Array.from({ length: claimed.length / 3 }, (_, index): ClaimedTask => {
        const [id = "", body = "", channel = ""] = claimed.slice(index * 3, index * 3 + 3)
        return { id, body, token, replyTo: channel === "" ? null : channel }
      })
    },
    settle: async (settlements) =>
      (await settle([
        `${retentionMillis}`,
        ...settlements.flatMap(({ result, task }) => [task.id, task.token, result, task.replyTo ?? ""])
      ])) as number,
    renew: async (tokens, leaseMillis) => void (await renew([`${leaseMillis}`, ...tokens])),
    read: async (ids) => {
      const found = await Promise.all(ids.map((id) => client.hGet(`${prefix}:task:${id}`, "result")))
      return found.flatMap((result, index): ReadonlyArray<Result> =>
        typeof result === "string" ? [[ids[index] ?? "", result]] : []
      )
    },
    onMessages: async (wake) => {
      onMessage = wake
      await (listening ??= subscribe(`${prefix}:messages`, () => onMessage()))
      return async () => {
        onMessage = () => {}
      }
    },
    onResults: async (receive) => {
      await subscribe(results, (text) => receive(JSON.parse(text) as ReadonlyArray<Result>))
      replyTo = results
    },
    close: async () => {
      await client.close()
      if (subscriber) (await subscriber).destroy()
    }
  }
}

export const floorPlus: System = {
  note:
    `bare node-redis, a script for each batch, ${promises} Result and removal of the message are one script.` +
    " A worker that finds too few messages is woken by the next enqueue; a result is published to the process that" +
    " enqueued the task, and read after 5 s where that is missed. Records expire a day after their end.",
  open: async (location) => makeSession(await openStore(location))
}
