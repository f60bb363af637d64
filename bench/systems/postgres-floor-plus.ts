/**
 * A task queue with results, written by hand over the bare `PgConnection`.
 *
 * A task is a row of `tasks`: its record and its body. A message is a row of `ready`, which is no more than a place in
 * the queue. A claim moves the rows that it takes out of `ready` into one row of `claims`, which is the lease of them
 * all. Neither a start nor an end of a task writes an index: rows of `tasks` have room for their next versions.
 */
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { Effect, Exit, Queue, Redacted, Scope } from "effect"
import { type ClaimedTask, type FloorPlusStore, makeSession, promises, type Result } from "../floorPlus.ts"
import { parseLocation } from "../postgres.ts"
import type { System } from "../system.ts"

/** Results of one notification: it carries at most 8,000 bytes. */
const maxPushed = 64
const workerSeconds = 60

/** state: 0 waits, 1 runs, 2 has ended. */
const schema = [
  `CREATE TABLE IF NOT EXISTS tasks (
    id text COLLATE "C" PRIMARY KEY, state smallint NOT NULL DEFAULT 0, attempt integer NOT NULL DEFAULT 0,
    token text, reply_to text, enqueued_at timestamptz NOT NULL DEFAULT now(), started_at timestamptz,
    finished_at timestamptz, body text NOT NULL, result text
  ) WITH (fillfactor = 40)`,
  "CREATE TABLE IF NOT EXISTS ready (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL)",
  "CREATE TABLE IF NOT EXISTS claims (token text PRIMARY KEY, held integer, ids text[], leased_until timestamptz)",
  "CREATE TABLE IF NOT EXISTS workers (id text PRIMARY KEY, until timestamptz NOT NULL)"
]

const enqueueTasks = `WITH added AS (
  INSERT INTO tasks (id, body, reply_to) SELECT id, body, $3 FROM unnest($1::text[], $2::text[]) AS given (id, body)
  ON CONFLICT (id) DO NOTHING RETURNING id
), queued AS (INSERT INTO ready (id) SELECT id FROM added)
SELECT EXISTS (SELECT 1 FROM workers WHERE until > now()) AS has_workers`

const claimTasks = `WITH taken AS (
  DELETE FROM ready WHERE ctid = ANY (ARRAY(SELECT ctid FROM ready ORDER BY seq LIMIT $2 FOR UPDATE SKIP LOCKED))
  RETURNING id
), started AS (
  UPDATE tasks SET state = 1, attempt = attempt + 1, token = $1, started_at = now()
  FROM taken WHERE tasks.id = taken.id AND tasks.state = 0
  RETURNING tasks.id, tasks.body, tasks.reply_to
), leased AS (
  INSERT INTO claims SELECT $1, count(*), array_agg(id), now() + $3 * interval '1 ms' FROM started HAVING count(*) > 0
)
SELECT id, body, reply_to AS "replyTo", $1 AS token FROM started`

const settleTasks = `WITH ended AS (
  UPDATE tasks SET state = 2, result = given.result, finished_at = now()
  FROM unnest($1::text[], $2::text[], $3::text[]) AS given (id, token, result)
  WHERE tasks.id = given.id AND tasks.token = given.token AND tasks.state = 1
  RETURNING tasks.token
), ends AS (SELECT token, count(*) AS count FROM ended GROUP BY token
), closed AS (DELETE FROM claims USING ends WHERE claims.token = ends.token AND held <= count
), others AS (UPDATE claims SET held = held - count FROM ends WHERE claims.token = ends.token AND held > count)
SELECT sum(count)::integer AS count FROM ends`

/** As a separate statement, it does not hold the lock of NOTIFY while a commit waits for the disk. */
const pushResults = `SELECT pg_notify(reply_to, json_agg(json_build_array(id, result))::text)
FROM tasks WHERE id = ANY ($1::text[]) AND state = 2 AND reply_to IS NOT NULL GROUP BY reply_to`

const requeueLapsed = `WITH lapsed AS (DELETE FROM claims WHERE leased_until < now() RETURNING token, ids
), waiting AS (
  UPDATE tasks SET state = 0 FROM lapsed, unnest(lapsed.ids) AS held (id)
  WHERE tasks.id = held.id AND tasks.token = lapsed.token AND tasks.state = 1
  RETURNING tasks.id
)
INSERT INTO ready (id) SELECT id FROM waiting`

const renewClaims =
  "UPDATE claims SET leased_until = now() + $2 * interval '1 ms' WHERE token = ANY ($1::text[])"
const registerWorker = `INSERT INTO workers VALUES ($1, now() + interval '${workerSeconds} s')
ON CONFLICT (id) DO UPDATE SET until = excluded.until`

/** Opens the store. */
export const openStore = async (location: string): Promise<FloorPlusStore> => {
  const { schema: name, url } = parseLocation(location)
  const scope = Scope.makeUnsafe()
  const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) =>
    Effect.runPromise(Scope.provide(effect, scope))
  /** Plans follow the indexes, whatever the statistics say of a table that was empty a minute ago. */
  const connect = (parameters: Readonly<Record<string, string>> = {}) =>
    run(
      PgConnection.make({
        url: Redacted.make(url),
        multiplex: true,
        startupParameters: {
          search_path: name,
          enable_seqscan: "off",
          enable_hashjoin: "off",
          enable_mergejoin: "off",
          jit: "off",
          ...parameters
        }
      })
    )
  const connection = await connect()
  // A claim that is lost in a crash of the server counts as not made, so its commit need not wait for the disk.
  const claiming = await connect({ synchronous_commit: "off" })
  const query = async <Row>(on: PgConnection.PgConnection, statement: string, ...values: Array<unknown>) => {
    const { rows } = await Effect.runPromise(on.query(statement, values))
    return rows as ReadonlyArray<unknown> as ReadonlyArray<Row>
  }
  for (const statement of schema) await query(connection, statement)

  const messages = `${name}_messages`
  const results = `${name}_results_${process.pid}`
  let replyTo: string | null = null
  const listen = async (channel: string, receive: (payload: string) => void) => {
    const notifications = await run((await connect()).listen(channel))
    const take = Effect.map(Queue.takeAll(notifications), (all) =>
      all.forEach(({ payload }) => receive(payload))
    )
    Effect.runFork(Effect.ignore(Effect.forever(take)))
  }
  const notify = (statement: string, ...values: Array<unknown>) =>
    void query(connection, statement, ...values).catch(() => {}) // what is missed is found by the next look
  let onMessage = () => {}
  let listening: Promise<void> | undefined
  let lastToken = 0

  return {
    splitsBatches: false,
    enqueue: async (tasks) => {
      const columns = [tasks.map(({ id }) => id), tasks.map(({ body }) => body), replyTo]
      const [found] = await query<{ has_workers: boolean }>(connection, enqueueTasks, ...columns)
      if (found?.has_workers) notify("SELECT pg_notify($1, '')", messages)
    },
    claim: (max, leaseMillis) =>
      query<ClaimedTask>(claiming, claimTasks, `${process.pid}-${++lastToken}`, max, leaseMillis),
    settle: async (settlements) => {
      const settled = query<{ count: number | null }>(
        connection,
        settleTasks,
        settlements.map(({ task }) => task.id),
        settlements.map(({ task }) => task.token),
        settlements.map(({ result }) => result)
      )
      const awaited = settlements.flatMap(({ task }) => (task.replyTo === null ? [] : [task.id]))
      for (let at = 0; at < awaited.length; at += maxPushed) {
        notify(pushResults, awaited.slice(at, at + maxPushed))
      }
      return (await settled)[0]?.count ?? 0
    },
    renew: async (tokens, leaseMillis) => void (await query(connection, renewClaims, tokens, leaseMillis)),
    read: async (ids) => {
      const rows = await query<{ id: string; result: string }>(
        connection,
        "SELECT id, result FROM tasks WHERE id = ANY ($1::text[]) AND state = 2",
        ids
      )
      return rows.map(({ id, result }): Result => [id, result])
    },
    onMessages: async (wake) => {
      const register = () => query(claiming, registerWorker, `${process.pid}`)
      onMessage = wake
      await (listening ??= listen(messages, () => onMessage()))
      await register()
      const look = setInterval(() => notify(requeueLapsed), 1000)
      const registering = setInterval(() => void register(), (workerSeconds * 1000) / 3)
      return async () => {
        clearInterval(look)
        clearInterval(registering)
        await query(claiming, "DELETE FROM workers WHERE id = $1", `${process.pid}`)
      }
    },
    onResults: async (receive) => {
      await listen(results, (payload) => receive(JSON.parse(payload) as ReadonlyArray<Result>))
      replyTo = results
    },
    close: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

export const floorPlus: System = {
  note:
    `bare PgConnection of @effect/sql-pg 4.0.5 (multiplex: true, whose calls are Effects and nothing else is), ${promises}` +
    " Result and removal of the message are one statement. A claim is a row for all of its tasks, on a connection" +
    " without synchronous_commit. NOTIFY wakes workers and carries results to the process that enqueued them, in" +
    " statements of their own; what is missed is read every 5 s.",
  open: async (location) => makeSession(await openStore(location))
}
