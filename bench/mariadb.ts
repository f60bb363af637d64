/** The locations of the systems on MariaDB: one database, with a new prefix for each measurement. */
import { randomBytes } from "node:crypto"
import { subscribe } from "node:diagnostics_channel"
import { createConnection, type RowDataPacket } from "mysql2/promise"

export interface MariadbLocation {
  readonly url: string
  /** The prefix of the tables' names. */
  readonly prefix: string
}

const server = process.env["CHICORY_TEST_MARIADB_URL"] ?? "mysql://root@127.0.0.1:3306/test"

/** Parses a location: the server's URL, with the prefix as its fragment. */
export const parseLocation = (location: string): MariadbLocation => {
  const [url = "", prefix = ""] = location.split("#")
  return { url, prefix }
}

interface TableRow extends RowDataPacket {
  readonly name: string
}

const removeTables = async (prefix: string) => {
  const connection = await createConnection(server)
  const [tables] = await connection.query<Array<TableRow>>(
    "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE ?",
    [`${prefix}\\_%`]
  )
  for (const { name } of tables) await connection.query("DROP TABLE ??", [name])
  await connection.end()
}

interface BytesRow extends RowDataPacket {
  readonly bytes: string | number | null
}

/** Returns the bytes of the tables' files. */
const bytesOfTables = async (prefix: string) => {
  const connection = await createConnection(server)
  const [[row]] = await connection.query<Array<BytesRow>>(
    `SELECT SUM(FILE_SIZE) AS bytes FROM information_schema.INNODB_SYS_TABLESPACES
    WHERE NAME LIKE CONCAT(DATABASE(), '/', ?)`,
    [`${prefix}\\_%`]
  )
  await connection.end()
  return Number(row?.bytes)
}

export const makePrefix = () => {
  const prefix = `bench_${randomBytes(8).toString("hex")}`
  return {
    location: `${server}#${prefix}`,
    bytes: () => bytesOfTables(prefix),
    remove: () => removeTables(prefix)
  }
}

/** Counts the packets with statements that this process sends from now on, by mysql2. */
export const countPackets = (): (() => number) => {
  let count = 0
  for (const method of ["query", "execute"]) subscribe(`tracing:mysql2:${method}:start`, () => count++)
  return () => count
}
