/**
 * A task queue with results, written by hand over the bare `mysql2`.
 *
 * A task is a row of `tasks`: its record and its body. A message is a row of `ready`, which is no more than a place in
 * the queue. A claim moves the rows that it takes out of `ready` into one row of `claims`, which is the lease of them
 * all. The statements of a transaction go out in one packet, as far as none needs the answer of another.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { createPool, type RowDataPacket } from "mysql2/promise"
import { type ClaimedTask, type FloorPlusStore, makeSession, promises, type Result } from "../floorPlus.ts"
import { parseLocation } from "../mariadb.ts"
import type { System } from "../system.ts"

const connections = 8
/** MariaDB cannot push: an idle worker, and a process that awaits results, ask this often. */
const pollMillis = 5

/** state: 0 waits, 1 runs, 2 has ended. `origin` is the enqueue that wrote the row. */
const schema = (prefix: string) => [
  `CREATE TABLE IF NOT EXISTS ${prefix}_tasks (
    id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, state TINYINT NOT NULL DEFAULT 0,
    attempt INT NOT NULL DEFAULT 0, token VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin,
    origin VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    enqueued_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), started_at TIMESTAMP(3) NULL,
    finished_at TIMESTAMP(3) NULL, body LONGTEXT NOT NULL, result LONGTEXT
  ) ENGINE = InnoDB`,
  `CREATE TABLE IF NOT EXISTS ${prefix}_ready (
    seq BIGINT AUTO_INCREMENT PRIMARY KEY, id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
  ) ENGINE = InnoDB`,
  `CREATE TABLE IF NOT EXISTS ${prefix}_claims (
    token VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, held INT NOT NULL,
    leased_until TIMESTAMP(3) NOT NULL, ids LONGTEXT NOT NULL
  ) ENGINE = InnoDB`
]

interface ReadyRow extends RowDataPacket {
  readonly seq: number
  readonly id: string
  readonly body: string
}

interface ResultRow extends RowDataPacket {
  readonly id: string
  readonly result: string
}

interface ClaimRow extends RowDataPacket {
  readonly token: string
  readonly ids: string
}

/** Opens the store. */
export const openStore = async (location: string): Promise<FloorPlusStore> => {
  const { prefix, url } = parseLocation(location)
  const pool = createPool({ uri: url, connectionLimit: connections, multipleStatements: true })
  pool.on("connection", (connection) => {
    void connection.query("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
  })
  for (const statement of schema(prefix)) await pool.query(statement)
  const [tasks, ready, claims] = [`${prefix}_tasks`, `${prefix}_ready`, `${prefix}_claims`]
  let lastToken = 0
  const makeToken = () => `${process.pid}-${++lastToken}`

  const read = async (ids: ReadonlyArray<string>) => {
    if (ids.length === 0) return []
    const [rows] = await pool.query<Array<ResultRow>>(
      `SELECT id, result FROM ${tasks} WHERE id IN (?) AND state = 2`,
      [[...ids]]
    )
    return rows.map(({ id, result }): Result => [id, result])
  }
  /** Of several workers that find a claim, the one that removes it returns its tasks to the queue. */
  const requeueLapsed = async () => {
    const [lapsed] = await pool.query<Array<ClaimRow>>(
      `SELECT token, ids FROM ${claims} WHERE leased_until < NOW(3)`
    )
    for (const { ids, token } of lapsed) {
      const running = [ids.split(","), token]
      await pool.query(
        `START TRANSACTION;
        DELETE FROM ${claims} WHERE token = ? AND leased_until < NOW(3);
        SET @removed = ROW_COUNT();
        INSERT INTO ${ready} (id) SELECT id FROM ${tasks} WHERE @removed = 1 AND id IN (?) AND token = ? AND state = 1;
        UPDATE ${tasks} SET state = 0 WHERE @removed = 1 AND id IN (?) AND token = ? AND state = 1;
        COMMIT`,
        [token, ...running, ...running]
      )
    }
  }
  /** Calls `look` every few milliseconds until the returned function is called. */
  const poll = (look: () => Promise<void>) => {
    let stopped = false
    const loop = async () => {
      while (!stopped) {
        await look()
        await sleep(pollMillis)
      }
    }
    const looping = loop()
    return () => {
      stopped = true
      return looping
    }
  }
  let stopReceiving = async () => {}

  return {
    splitsBatches: false,
    enqueue: async (newTasks) => {
      const origin = makeToken()
      await pool.query(
        `START TRANSACTION;
        INSERT IGNORE INTO ${tasks} (id, body, origin) VALUES ?;
        INSERT INTO ${ready} (id) SELECT id FROM ${tasks} WHERE id IN (?) AND origin = ? ORDER BY id;
        COMMIT`,
        [newTasks.map(({ body, id }) => [id, body, origin]), newTasks.map(({ id }) => id), origin]
      )
    },
    claim: async (max, leaseMillis) => {
      const token = makeToken()
      const connection = await pool.getConnection()
      const [[, rows = []]] = await connection.query<Array<Array<ReadyRow>>>(
        `START TRANSACTION;
        SELECT r.seq, t.id, t.body FROM ${ready} AS r STRAIGHT_JOIN ${tasks} AS t ON t.id = r.id
        ORDER BY r.seq LIMIT ? FOR UPDATE SKIP LOCKED`,
        [max]
      )
      const ids = rows.map(({ id }) => id)
      await (rows.length === 0
        ? connection.query("COMMIT")
        : connection.query(
            `DELETE FROM ${ready} WHERE seq IN (?);
            UPDATE ${tasks} SET state = 1, attempt = attempt + 1, token = ?, started_at = NOW(3) WHERE id IN (?);
            INSERT INTO ${claims} VALUES (?, ?, NOW(3) + INTERVAL ? MICROSECOND, ?);
            COMMIT`,
            [rows.map(({ seq }) => seq), token, ids, token, ids.length, leaseMillis * 1000, ids.join(",")]
          ))
      connection.release()
      return rows.map(({ body, id }): ClaimedTask => ({ id, body, token, replyTo: null }))
    },
    settle: async (settlements) => {
      const statements: Array<string> = []
      const values: Array<string | Array<string>> = []
      for (const [token, group] of Map.groupBy(settlements, ({ task }) => task.token)) {
        const ids = group.map(({ task }) => task.id)
        statements.push(
          `UPDATE ${tasks} SET state = 2, finished_at = NOW(3), result = ELT(FIELD(id, ?), ?)
            WHERE id IN (?) AND token = ? AND state = 1`,
          "SET @count = ROW_COUNT()",
          "SET @ended = @ended + @count",
          `UPDATE ${claims} SET held = held - @count WHERE token = ?`,
          `DELETE FROM ${claims} WHERE token = ? AND held <= 0`
        )
        values.push(
          ids,
          group.map(({ result }) => result),
          ids,
          token,
          token,
          token
        )
      }
      const text = `SET @ended = 0; START TRANSACTION; ${statements.join("; ")}; COMMIT; SELECT @ended AS ended`
      const [answers] = await pool.query<Array<RowDataPacket>>(text, values)
      const [row] = answers.at(-1) as unknown as ReadonlyArray<{ readonly ended: number }>
      return row?.ended ?? 0
    },
    renew: async (tokens, leaseMillis) =>
      void (await pool.query(
        `UPDATE ${claims} SET leased_until = NOW(3) + INTERVAL ? MICROSECOND WHERE token IN (?)`,
        [leaseMillis * 1000, [...tokens]]
      )),
    read,
    onMessages: async (wake) => {
      const lapsing = setInterval(() => void requeueLapsed(), 1000)
      const stop = poll(async () => {
        const [rows] = await pool.query<Array<ReadyRow>>(`SELECT seq FROM ${ready} ORDER BY seq LIMIT 1`)
        if (rows.length > 0) wake()
      })
      return async () => {
        clearInterval(lapsing)
        await stop()
      }
    },
    onResults: async (receive, awaited) => {
      stopReceiving = poll(async () => receive(await read(awaited())))
    },
    close: async () => {
      await stopReceiving()
      await pool.end()
    }
  }
}

export const floorPlus: System = {
  note:
    `bare mysql2 3.24, a pool of ${connections}, statements of a transaction in one packet, ${promises} Result and removal` +
    " of the message are one transaction. A claim is a row for all of its tasks. A worker looks for messages, and a" +
    ` process for the results that it awaits, every ${pollMillis} ms.`,
  open: async (location) => makeSession(await openStore(location))
}
