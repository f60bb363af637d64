/**
 * A task queue with results, written by hand over the bare `amqplib` and `node-redis`: messages in a quorum queue, and
 * records in Redis. The record is written before its message is published, and decides whether a message runs, so a
 * message that comes twice is harmless.
 */
import type { Channel, ConsumeMessage } from "amqplib"
import { createClient } from "redis"
import {
  type ClaimedTask,
  type FloorPlusStore,
  makeSession,
  type NewTask,
  promises,
  type Result
} from "../floorPlus.ts"
import { connect as connectToRabbit, floorQueue, parseLocation } from "../rabbitmq.ts"
import type { System } from "../system.ts"

const retentionMillis = 24 * 3600 * 1000
const busyMillis = 1000

const prelude = `local p = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function taskKey(id) return p .. ':task:' .. id end
`

/** Takes a channel for the results or an empty text, and ids. Returns 1 for each whose message is to be published. */
const createRecords = `${prelude}
local answers = {}
for i = 2, #ARGV do
  local key = taskKey(ARGV[i])
  if redis.call('EXISTS', key) == 0 then
    redis.call('HSET', key, 'reply', ARGV[1], 'enqueued', now)
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = redis.call('HEXISTS', key, 'published') == 0 and 1 or 0
  end
end
return answers`

/** Takes ids. */
const markPublished = `${prelude}
for i = 1, #ARGV do
  if redis.call('EXISTS', taskKey(ARGV[i])) == 1 then redis.call('HSET', taskKey(ARGV[i]), 'published', 1) end
end`

/** Takes a token, the lease, and ids. Returns for each the channel for its result if it runs, 0 to drop it, 1 if it is busy. */
const startTasks = `${prelude}
local answers = {}
for i = 3, #ARGV do
  local key = taskKey(ARGV[i])
  local task = redis.call('HMGET', key, 'reply', 'state', 'leased', 'attempt')
  if not task[1] or task[2] == '2' then answers[#answers + 1] = 0
  elseif task[2] == '1' and tonumber(task[3]) > now then answers[#answers + 1] = 1
  else
    redis.call('HSET', key, 'state', 1, 'attempt', (task[4] or 0) + 1, 'token', ARGV[1], 'started', now, 'leased', now + ARGV[2])
    answers[#answers + 1] = task[1]
  end
end
return answers`

/** Takes the retention, and id, token, result and channel of each task. Returns how many results it stored. */
const settleTasks = `${prelude}
local count, pushed = 0, {}
for i = 2, #ARGV, 4 do
  local id, reply = ARGV[i], ARGV[i + 3]
  local key = taskKey(id)
  local held = redis.call('HMGET', key, 'token', 'state')
  if held[1] == ARGV[i + 1] and held[2] == '1' then
    redis.call('HSET', key, 'state', 2, 'result', ARGV[i + 2], 'finished', now)
    redis.call('PEXPIRE', key, ARGV[1])
    count = count + 1
    if reply ~= '' then
      pushed[reply] = pushed[reply] or {}
      table.insert(pushed[reply], { id, ARGV[i + 2] })
    end
  end
end
for reply, results in pairs(pushed) do redis.call('PUBLISH', reply, cjson.encode(results)) end
return count`

/** Takes the lease, and id and token of each task. */
const renewLeases = `${prelude}
for i = 2, #ARGV, 2 do
  if redis.call('HGET', taskKey(ARGV[i]), 'token') == ARGV[i + 1] then
    redis.call('HSET', taskKey(ARGV[i]), 'leased', now + ARGV[1])
  end
end`

interface Task extends ClaimedTask {
  readonly message: ConsumeMessage
}

const connectToRedis = async (url: string) => {
  const client = createClient({ url, RESP: 2 })
  client.on("error", (error) => console.error(error))
  await client.connect()
  return client
}

/** Opens the store. */
export const openStore = async (location: string): Promise<FloorPlusStore<Task>> => {
  const { prefix, redisUrl, url } = parseLocation(location)
  const client = await connectToRedis(redisUrl)
  const load = async (lua: string) => {
    const sha = (await client.sendCommand(["SCRIPT", "LOAD", lua])) as string
    return (args: ReadonlyArray<string>): Promise<unknown> =>
      client.sendCommand(["EVALSHA", sha, "1", prefix, ...args])
  }
  const [create, mark] = [await load(createRecords), await load(markPublished)]
  const [start, settle, renew] = [await load(startTasks), await load(settleTasks), await load(renewLeases)]

  const queue = floorQueue(prefix)
  const connection = await connectToRabbit(url)
  const publisher = await connection.createConfirmChannel()
  await publisher.assertQueue(queue, { durable: true, arguments: { "x-queue-type": "quorum" } })
  publisher.on("return", () => {
    throw new Error("a message came back: no queue")
  })
  const publish = ({ body, id }: NewTask) =>
    new Promise<void>((resolve, reject) => {
      const properties = { messageId: id, persistent: true, mandatory: true }
      publisher.publish("", queue, Buffer.from(body), properties, (error: Error | null) =>
        error ? reject(error) : resolve()
      )
    })

  const results = `${prefix}:results:${process.pid}`
  let replyTo = ""
  let subscriber: typeof client | undefined
  let channel: Channel | undefined
  /** Messages that were pushed and not claimed. */
  let pushed: Array<ConsumeMessage> = []
  /** Messages that were claimed and not acked, by delivery tag, in the order of their arrival. */
  const unacked = new Map<number, ClaimedTask | undefined>()
  let lastToken = 0

  /** Acks up to the first message that is not done in one ack, and those behind it one by one. */
  const ack = (messages: ReadonlyArray<ConsumeMessage>) => {
    const done = new Map(messages.map((message) => [message.fields.deliveryTag, message]))
    let last: ConsumeMessage | undefined
    for (const tag of unacked.keys()) {
      const message = done.get(tag)
      if (message === undefined) break
      last = message
      done.delete(tag)
      unacked.delete(tag)
    }
    if (last) channel?.ack(last, true)
    for (const [tag, message] of done) {
      if (unacked.delete(tag)) channel?.ack(message)
    }
  }
  const returnLater = (message: ConsumeMessage) =>
    void setTimeout(() => {
      if (unacked.delete(message.fields.deliveryTag)) channel?.nack(message)
    }, busyMillis)

  return {
    splitsBatches: true,
    enqueue: async (tasks) => {
      const ids = tasks.map(({ id }) => id)
      const unpublished = (await create([replyTo, ...ids])) as ReadonlyArray<number>
      await Promise.all(tasks.filter((_, index) => unpublished[index] === 1).map(publish))
      void mark(ids) // without the mark, another enqueue of the id publishes its message once more
    },
    claim: async (max, leaseMillis) => {
      const claimed = pushed.slice(0, max)
      if (claimed.length === 0) return []
      pushed = pushed.slice(max)
      for (const { fields } of claimed) unacked.set(fields.deliveryTag, undefined)
      const token = `${process.pid}-${++lastToken}`
      const ids = claimed.map(({ properties }) => String(properties.messageId))
      const answers = (await start([token, `${leaseMillis}`, ...ids])) as ReadonlyArray<string | number>
      const tasks: Array<Task> = []
      claimed.forEach((message, index) => {
        const answer = answers[index]
        if (typeof answer === "string") {
          const body = message.content.toString()
          const task = { id: ids[index] ?? "", body, token, replyTo: answer === "" ? null : answer, message }
          unacked.set(message.fields.deliveryTag, task)
          tasks.push(task)
        } else if (answer === 1) returnLater(message)
      })
      ack(claimed.filter((_, index) => answers[index] === 0))
      return tasks
    },
    settle: async (settlements) => {
      const args = settlements.flatMap(({ result, task: { id, replyTo, token } }) => [
        id,
        token,
        result,
        replyTo ?? ""
      ])
      const count = (await settle([`${retentionMillis}`, ...args])) as number
      ack(settlements.map(({ task }) => task.message))
      return count
    },
    renew: async (_, leaseMillis) => {
      const running = [...unacked.values()].flatMap((task) => (task ? [task.id, task.token] : []))
      await renew([`${leaseMillis}`, ...running])
    },
    read: async (ids) => {
      const found = await Promise.all(ids.map((id) => client.hGet(`${prefix}:task:${id}`, "result")))
      return found.flatMap((result, index): ReadonlyArray<Result> =>
        typeof result === "string" ? [[ids[index] ?? "", result]] : []
      )
    },
    onMessages: async (wake, concurrency) => {
      const opened = (channel = await connection.createChannel())
      await opened.prefetch(concurrency)
      await opened.consume(queue, (message) => {
        if (message === null) throw new Error("the consumer was cancelled")
        if (pushed.push(message) === 1) setImmediate(wake)
      })
      return async () => {
        await opened.close()
        pushed = []
        unacked.clear()
      }
    },
    onResults: async (receive) => {
      subscriber = await connectToRedis(redisUrl)
      await subscriber.subscribe(results, (text) => receive(JSON.parse(text) as ReadonlyArray<Result>))
      replyTo = results
    },
    close: async () => {
      await connection.close()
      await client.close()
      subscriber?.destroy()
    }
  }
}

export const floorPlus: System = {
  note:
    `bare amqplib 2.3.1 (a quorum queue, each message confirmed) and node-redis (records), ${promises} A record is written,` +
    " then its message is published and confirmed; a batch of messages is started by one script, settled by another," +
    " and acked then, so result and ack are two steps. prefetch = concurrency. A result is published on Redis to the" +
    " process that enqueued the task, and read after 5 s where that is missed.",
  open: async (location) => makeSession(await openStore(location))
}
