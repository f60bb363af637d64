/**
 * The fastest that `@effect/sql-pg` allows: only the writes that a durable task needs, in as few statements as
 * possible.
 */
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { Effect, Exit, Queue, Redacted, Scope } from "effect"
import { forEach, makeCounter, roundTrips } from "../calls.ts"
import { parseLocation } from "../postgres.ts"
import type { Payload, RunningWorker, Session, System, WorkOptions } from "../system.ts"

const batch = 100
/** How many statements that store results may be in flight while the next messages are claimed. */
const maxSettling = 2
const lookMillis = 1000

/** A claim writes new versions of its rows. Free space keeps them on their page, so the index need not change. */
const createMessages = `CREATE TABLE IF NOT EXISTS messages (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL, body text NOT NULL, reply_to text,
  token text, leased_until timestamptz
) WITH (fillfactor = 50)`
const createResults = "CREATE TABLE IF NOT EXISTS results (id text PRIMARY KEY, result text NOT NULL)"

const insertMessages = `INSERT INTO messages (id, body, reply_to)
SELECT id, body, $3 FROM unnest($1::text[], $2::text[]) AS message (id, body)`

const claimMessages = `UPDATE messages SET token = $1, leased_until = now() + interval '30 seconds'
WHERE seq = ANY (ARRAY(
  SELECT seq FROM messages WHERE leased_until IS NULL OR leased_until < now()
  ORDER BY seq LIMIT $2 FOR UPDATE SKIP LOCKED
))
RETURNING seq, id, body, reply_to, token`

const settleMessages = `WITH settled AS (
  DELETE FROM messages USING unnest($1::bigint[], $2::text[], $3::text[]) AS done (seq, token, result)
  WHERE messages.seq = ANY ($1) AND messages.seq = done.seq AND messages.token = done.token
  RETURNING messages.id, done.result
)
INSERT INTO results (id, result) SELECT id, result FROM settled`

/** As a separate statement after the one that it announces, it does not hold the lock of NOTIFY during a disk write. */
const notify = "SELECT pg_notify($1, $2)"

interface Message {
  readonly seq: bigint
  readonly id: string
  readonly body: string
  /** The channel for its result. */
  readonly reply_to: string | null
  readonly token: string
}

interface Done {
  readonly message: Message
  readonly result: string
}

interface Enqueued {
  readonly id: string
  readonly payload: Payload
}

let lastId = 0
const makeId = () => `${process.pid}-${++lastId}`
const enqueued = (payload: Payload): Enqueued => ({ id: makeId(), payload })

const query = async (
  connection: PgConnection.PgConnection,
  statement: string,
  values: ReadonlyArray<unknown> = []
) => (await Effect.runPromise(connection.query(statement, values))).rows

/** Collects the items that arrive while `send` runs, and sends them together afterwards. */
const makeBatches = <A>(send: (items: ReadonlyArray<A>) => Promise<void>) => {
  let waiting: Array<{ readonly item: A; readonly resolve: () => void }> = []
  let sending = false
  const sendAll = async () => {
    while (waiting.length > 0) {
      const now = waiting
      waiting = []
      await send(now.map(({ item }) => item))
      for (const { resolve } of now) resolve()
      await new Promise(setImmediate)
    }
    sending = false
  }
  return (item: A) =>
    new Promise<void>((resolve) => {
      waiting.push({ item, resolve })
      if (sending) return
      sending = true
      setImmediate(() => void sendAll())
    })
}

/** `rest` waits until `wake` is called, at most the given milliseconds; not at all if it was called since the last rest. */
const makeAlarm = () => {
  let woken = false
  let end = () => {}
  return {
    wake: () => {
      woken = true
      end()
    },
    rest: async (millis: number) => {
      if (!woken) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, millis)
          end = () => {
            clearTimeout(timer)
            resolve()
          }
        })
      }
      woken = false
    }
  }
}

const open = async (location: string): Promise<Session> => {
  const { url, schema } = parseLocation(location)
  const scope = Scope.makeUnsafe()
  const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) =>
    Effect.runPromise(Scope.provide(effect, scope))
  const connect = (parameters: Readonly<Record<string, string>> = {}) => {
    const startupParameters = { search_path: schema, ...parameters }
    return run(PgConnection.make({ url: Redacted.make(url), multiplex: true, startupParameters }))
  }
  /** Uses a separate connection. */
  const listen = async (channel: string, receive: (payload: string) => void) => {
    const notifications = await run((await connect()).listen(channel))
    const take = Effect.map(Queue.takeAll(notifications), (all) =>
      all.forEach(({ payload }) => receive(payload))
    )
    Effect.runFork(Effect.ignore(Effect.forever(take)))
  }
  const connection = await connect()
  await query(connection, createMessages)
  await query(connection, createResults)

  const messagesChannel = `${schema}_messages`
  const resultsChannel = `${schema}_results_${process.pid}`
  let listening: Promise<void> | undefined

  /** Wakes a worker only if results are awaited: otherwise it does not run yet, or has enough to do. */
  const insert = async (tasks: ReadonlyArray<Enqueued>) => {
    const ids = tasks.map(({ id }) => id)
    const bodies = tasks.map(({ payload }) => JSON.stringify(payload))
    const sent = [query(connection, insertMessages, [ids, bodies, listening ? resultsChannel : null])]
    if (listening) sent.push(query(connection, notify, [messagesChannel, ""]))
    await Promise.all(sent)
  }
  const insertWithOthers = makeBatches(insert)
  const add = async (payload: Payload) => {
    const task = enqueued(payload)
    await insertWithOthers(task)
    return task.id
  }

  const settle = async (done: ReadonlyArray<Done>) => {
    const sent = [
      query(connection, settleMessages, [
        done.map(({ message }) => message.seq),
        done.map(({ message }) => message.token),
        done.map(({ result }) => result)
      ])
    ]
    for (const [channel, group] of Map.groupBy(done, ({ message }) => message.reply_to)) {
      if (channel === null) continue
      const results = JSON.stringify(group.map(({ message, result }) => [message.id, result]))
      sent.push(query(connection, notify, [channel, results]))
    }
    await Promise.all(sent)
  }

  const work = async ({ concurrency, sleepMillis }: WorkOptions): Promise<RunningWorker> => {
    const counter = makeCounter()
    const alarm = makeAlarm()
    // A claim that is lost in a crash of the server counts as not made, so its commit need not wait for the disk.
    const claiming = await connect({ synchronous_commit: "off" })
    const settling = new Set<Promise<void>>()
    let running = 0
    let stopped = false
    let lastToken = 0
    let done: Array<Done> = []

    const settleBatch = (settled: ReadonlyArray<Done>) => {
      const sending = settle(settled).then(() => {
        settling.delete(sending)
        counter.add(settled.length)
        alarm.wake()
      })
      settling.add(sending)
    }
    const settleDone = () => {
      for (let at = 0; at < done.length; at += batch) settleBatch(done.slice(at, at + batch))
      running -= done.length
      done = []
      alarm.wake()
    }
    const finish = (message: Message) => {
      const { value } = JSON.parse(message.body) as Payload
      if (done.push({ message, result: JSON.stringify({ value }) }) === 1) setImmediate(settleDone)
    }
    const begin = (message: Message) => {
      if (sleepMillis === 0) finish(message)
      else setTimeout(finish, sleepMillis, message)
    }
    const claim = async () => {
      const free = settling.size < maxSettling ? Math.min(batch, concurrency - running) : 0
      if (free === 0) return []
      const token = `${process.pid}-${++lastToken}`
      const rows: ReadonlyArray<unknown> = await query(claiming, claimMessages, [token, free])
      return rows as ReadonlyArray<Message>
    }
    const loop = async () => {
      while (!stopped) {
        const claimed = await claim()
        running += claimed.length
        claimed.forEach(begin)
        if (claimed.length === 0) await alarm.rest(lookMillis)
      }
    }
    await listen(messagesChannel, alarm.wake)
    const looping = loop()
    return {
      finished: counter.reached,
      stop: async () => {
        stopped = true
        alarm.wake()
        await looping
        await Promise.all(settling)
      }
    }
  }

  const waiting = new Map<string, (result: string) => void>()
  const receive = (payload: string) => {
    for (const [id, result] of JSON.parse(payload) as ReadonlyArray<[string, string]>) {
      waiting.get(id)?.(result)
      waiting.delete(id)
    }
  }
  const call = async (payload: Payload) => {
    const task = enqueued(payload)
    const result = new Promise<string>((resolve) => waiting.set(task.id, resolve))
    await insertWithOthers(task)
    return (JSON.parse(await result) as { readonly value: number }).value
  }

  return {
    oneByOne: async (payloads) => {
      for (const payload of payloads) await insert([enqueued(payload)])
    },
    concurrently: (payloads, inFlight) => forEach(payloads, inFlight, add),
    bulk: async (chunks) => {
      const ids: Array<string> = []
      for (const payloads of chunks) {
        const tasks = payloads.map(enqueued)
        await insert(tasks)
        ids.push(...tasks.map(({ id }) => id))
      }
      return ids
    },
    work,
    roundTrips: async (options) => {
      await (listening ??= listen(resultsChannel, receive))
      return roundTrips(options, call)
    },
    check: async (ids) => {
      const rows = await query(connection, "SELECT id FROM results WHERE id = ANY ($1)", [ids])
      return rows.length
    },
    close: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

export const floor: System = {
  note:
    "bare PgConnection of @effect/sql-pg 4.0.5 (multiplex: true), no worker or queue around it; a message and a result" +
    " for each task. W1a inserts a row in each transaction, W1c 1,000 rows by unnest, W1b the rows of the callers" +
    ` that arrived during the insert before. W2: one statement leases up to ${batch} messages (FOR UPDATE SKIP LOCKED, on` +
    " a connection of its own without synchronous_commit), another removes them and stores their results; up to" +
    ` ${maxSettling} of those are in flight while the next are claimed. W3, W4: NOTIFY wakes the worker and carries` +
    " results to the producer, in separate statements; a result whose notification is missed is not found." +
    " It counts no attempts and keeps no task states.",
  open
}
