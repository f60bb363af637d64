/**
 * The fastest that node-redis allows: only a stream and a consumer group. The commands of one turn of the event loop
 * go out in one write.
 */
import { createClient } from "redis"
import { forEach, makeCounter, roundTrips } from "../calls.ts"
import { parseLocation } from "../redis.ts"
import type { Payload, RunningWorker, Session, System, WorkOptions } from "../system.ts"

const batch = 100
const group = "workers"
const blockMillis = 5000
const resultSeconds = 3600

interface Message {
  readonly entry: string
  readonly id: string
  readonly body: string
  /** The channel for its result. Without it the result is not stored either. */
  readonly replyTo: string | undefined
}

interface Done {
  readonly message: Message
  readonly result: string
}

type Entries = ReadonlyArray<readonly [entry: string, fields: ReadonlyArray<string>]>

const connect = async (url: string) => {
  const client = createClient({ url, RESP: 2 })
  client.on("error", (error) => console.error(error))
  await client.connect()
  return client
}

const toMessage = ([entry, fields]: Entries[number]): Message => ({
  entry,
  id: fields[1] ?? "",
  body: fields[3] ?? "",
  replyTo: fields[5]
})

const open = async (location: string): Promise<Session> => {
  const { url, prefix } = parseLocation(location)
  const stream = `${prefix}:stream`
  const resultKey = (id: string) => `${prefix}:result:${id}`
  const client = await connect(url)
  const opened = [client]
  const another = async () => {
    const connection = await connect(url)
    opened.push(connection)
    return connection
  }
  const processed = new Set<string>()
  let lastId = 0
  const makeId = () => `${process.pid}-${++lastId}`

  const add = async (payload: Payload, id = makeId(), replyTo?: string) => {
    const command = ["XADD", stream, "*", "id", id, "body", JSON.stringify(payload)]
    if (replyTo !== undefined) command.push("reply", replyTo)
    await client.sendCommand(command)
    return id
  }

  const settle = async (done: ReadonlyArray<Done>) => {
    const entries = done.map(({ message }) => message.entry)
    const sent: Array<Promise<unknown>> = []
    const replies = new Map<string, Array<[string, string]>>()
    for (const { message, result } of done) {
      if (message.replyTo === undefined) continue
      sent.push(client.sendCommand(["SET", resultKey(message.id), result, "EX", `${resultSeconds}`]))
      const reply = replies.get(message.replyTo)
      if (reply) reply.push([message.id, result])
      else replies.set(message.replyTo, [[message.id, result]])
    }
    for (const [channel, reply] of replies) {
      sent.push(client.sendCommand(["PUBLISH", channel, JSON.stringify(reply)]))
    }
    sent.push(client.sendCommand(["XACK", stream, group, ...entries]))
    sent.push(client.sendCommand(["XDEL", stream, ...entries]))
    await Promise.all(sent)
    for (const { message } of done) processed.add(message.id)
  }

  const work = async ({ concurrency, sleepMillis }: WorkOptions): Promise<RunningWorker> => {
    const counter = makeCounter()
    const reader = await another()
    await client.sendCommand(["XGROUP", "CREATE", stream, group, "0", "MKSTREAM"]).catch((error: Error) => {
      if (!error.message.startsWith("BUSYGROUP")) throw error
    })
    const settling = new Set<Promise<void>>()
    let running = 0
    let stopped = false
    let done: Array<Done> = []
    let wake = () => {}

    const settleDone = () => {
      const settled = done
      done = []
      running -= settled.length
      wake()
      const sending = settle(settled).then(() => {
        settling.delete(sending)
        counter.add(settled.length)
      })
      settling.add(sending)
    }
    const finish = (message: Message) => {
      const { value } = JSON.parse(message.body) as Payload
      if (done.push({ message, result: JSON.stringify({ value }) }) === 1) setImmediate(settleDone)
    }
    const begin = (message: Message) => {
      if (sleepMillis === 0) finish(message)
      else setTimeout(finish, sleepMillis, message)
    }
    const read = async (count: number): Promise<Entries> => {
      const limits = ["COUNT", `${count}`, "BLOCK", `${blockMillis}`]
      const command = ["XREADGROUP", "GROUP", group, "worker", ...limits, "STREAMS", stream, ">"]
      const reply = (await reader.sendCommand(command)) as ReadonlyArray<readonly [string, Entries]> | null
      return reply?.[0]?.[1] ?? []
    }
    const loop = async () => {
      while (!stopped) {
        if (running >= concurrency) await new Promise<void>((resolve) => (wake = resolve))
        const entries = await read(Math.min(batch, concurrency - running))
        running += entries.length
        for (const entry of entries) begin(toMessage(entry))
      }
    }
    void loop().catch((error) => {
      if (!stopped) throw error
    })
    return {
      finished: counter.reached,
      stop: async () => {
        stopped = true
        reader.destroy()
        await Promise.all(settling)
      }
    }
  }

  const waiting = new Map<string, (result: string) => void>()
  const channel = `${prefix}:results:${process.pid}`
  let subscribed: Promise<void> | undefined
  const subscribe = async () => {
    const subscriber = await another()
    await subscriber.subscribe(channel, (text) => {
      for (const [id, result] of JSON.parse(text) as ReadonlyArray<[string, string]>) {
        waiting.get(id)?.(result)
        waiting.delete(id)
      }
    })
  }
  const call = async (payload: Payload) => {
    const id = makeId()
    const result = new Promise<string>((resolve) => waiting.set(id, resolve))
    await add(payload, id, channel)
    return (JSON.parse(await result) as { readonly value: number }).value
  }

  return {
    oneByOne: async (payloads) => {
      for (const payload of payloads) await add(payload)
    },
    concurrently: (payloads, inFlight) => forEach(payloads, inFlight, (payload) => add(payload)),
    bulk: async (chunks) => {
      const ids: Array<string> = []
      for (const payloads of chunks) ids.push(...(await Promise.all(payloads.map((payload) => add(payload)))))
      return ids
    },
    work,
    roundTrips: async (options) => {
      await (subscribed ??= subscribe())
      return roundTrips(options, call)
    },
    check: async (ids) => ids.filter((id) => processed.has(String(id))).length,
    close: async () => {
      for (const connection of opened) if (connection.isOpen) connection.destroy()
    }
  }
}

export const floor: System = {
  note:
    "bare node-redis, no Effect: a stream and a consumer group. W1b, W1c: an XADD for each task, 64 and 1,000 of them in" +
    ` flight. W2: XREADGROUP on a separate connection, up to ${batch} messages each, and for each such batch` +
    " one XACK and one XDEL, with the next batch read meanwhile; it stores no results there. W3, W4: the worker stores a result by SET and publishes those" +
    " of a batch to the producer in one PUBLISH; a result whose publication is missed is not found. It does not take" +
    " over the messages of a dead worker, counts no attempts and keeps no task states.",
  open
}
