/** The locations of the systems on Postgres: one server, with a new schema for each measurement. */
import { randomBytes } from "node:crypto"
import { Socket } from "node:net"

export interface PostgresLocation {
  readonly url: string
  /** The name of an existing, empty schema: letters, digits and `_`. */
  readonly schema: string
}

const server = process.env["CHICORY_TEST_POSTGRES_URL"] ?? "postgres://postgres@127.0.0.1:5432/test"

/** Parses a location: the server's URL, with the schema as its fragment. */
export const parseLocation = (location: string): PostgresLocation => {
  const [url = "", schema = ""] = location.split("#")
  return { url, schema }
}

const query = async (statement: string) => {
  const { Effect, Redacted } = await import("effect")
  const { make } = await import("@effect/sql-pg/PgConnection")
  const connection = make({ url: Redacted.make(server) })
  const result = await Effect.runPromise(
    Effect.scoped(Effect.flatMap(connection, ({ query }) => query(statement)))
  )
  return result.rows
}

const run = async (statement: string) => void (await query(statement))

const analyzeTables = (schema: string) => `DO $$
DECLARE name regclass;
BEGIN
  FOR name IN SELECT oid FROM pg_class WHERE relnamespace = '${schema}'::regnamespace AND relkind = 'r' LOOP
    EXECUTE 'ANALYZE ' || name;
  END LOOP;
END $$`

/** Vacuums the tables of a schema, and returns the bytes that are left. */
const bytesOfSchema = async (schema: string) => {
  const tables = await query(
    `SELECT oid::regclass::text AS name FROM pg_class WHERE relnamespace = '${schema}'::regnamespace AND relkind = 'r'`
  )
  for (const { name } of tables) await run(`VACUUM ${String(name)}`)
  const [row] = await query(
    `SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::float8 AS bytes FROM pg_class
    WHERE relnamespace = '${schema}'::regnamespace AND relkind = 'r'`
  )
  return Number(row?.["bytes"])
}

export const makeSchema = async () => {
  const schema = `chicory_bench_${randomBytes(8).toString("hex")}`
  await run(`CREATE SCHEMA ${schema}`)
  return {
    location: `${server}#${schema}`,
    analyze: () => run(analyzeTables(schema)),
    bytes: () => bytesOfSchema(schema),
    remove: () => run(`DROP SCHEMA IF EXISTS ${schema} CASCADE`)
  }
}

const encryptionRequests = new Set([80877103, 80877104])
const requests = new Set(Buffer.from("QE")) // Query and Execute

/** Reads the messages that a client sends on one connection, across the borders of chunks. */
const makeReader = (onMessage: (type: number) => void) => {
  const header = Buffer.alloc(8)
  let filled = 0
  let body = 0
  let started = false
  /** Before the session has started, a message has no type, but a code after its length. */
  const read = () => {
    if (started) {
      onMessage(header.readUInt8(0))
      return header.readUInt32BE(1) - 4
    }
    started = !encryptionRequests.has(header.readUInt32BE(4))
    return header.readUInt32BE(0) - 8
  }
  return (bytes: Uint8Array) => {
    let at = 0
    while (at < bytes.length) {
      const size = started ? 5 : 8
      const wanted = body > 0 ? body : size - filled
      const piece = bytes.subarray(at, at + wanted)
      at += piece.length
      if (body > 0) {
        body -= piece.length
        continue
      }
      header.set(piece, filled)
      filled += piece.length
      if (filled < size) return
      filled = 0
      body = read()
    }
  }
}

interface Writes {
  write: (this: Socket, chunk: Uint8Array | string, ...rest: ReadonlyArray<unknown>) => boolean
}

/** Counts the statements that this process sends from now on, by any driver. */
export const countRequests = (): (() => number) => {
  let count = 0
  const port = Number(new URL(server).port || 5432)
  const readers = new WeakMap<Socket, (bytes: Uint8Array) => void>()
  const readerOf = (socket: Socket) => {
    const reader = readers.get(socket) ?? makeReader((type) => void (requests.has(type) && count++))
    readers.set(socket, reader)
    return reader
  }
  const sockets = Socket.prototype as Writes
  const write = sockets.write
  sockets.write = function (chunk, ...rest) {
    if (this.remotePort === port) readerOf(this)(typeof chunk === "string" ? Buffer.from(chunk) : chunk)
    return write.call(this, chunk, ...rest)
  }
  return () => count
}
