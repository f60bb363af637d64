/** The locations of chicory on MariaDB: one database, with a new prefix for each measurement. */
import { randomBytes } from "node:crypto"
import { createConnection } from "mysql2/promise"

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

const tables = ["tasks", "messages", "dead_letters", "workers", "schema"]

export const makePrefix = () => {
  const prefix = `bench_${randomBytes(8).toString("hex")}`
  return {
    location: `${server}#${prefix}`,
    remove: async () => {
      const connection = await createConnection(server)
      for (const table of tables) await connection.query(`DROP TABLE IF EXISTS ${prefix}_${table}`)
      await connection.end()
    }
  }
}
