/** Where the systems on Redis are measured: one server, and a prefix of its own for each measurement. */
import { randomUUID } from "node:crypto"
import { subscribe } from "node:diagnostics_channel"

export interface RedisLocation {
  readonly url: string
  /** Letters, digits and `-`. */
  readonly prefix: string
}

const server = process.env["CHICORY_TEST_REDIS_URL"] ?? "redis://127.0.0.1:6379"

/** A location is the server's URL, with the prefix as its fragment. */
export const parseLocation = (location: string): RedisLocation => {
  const [url = "", prefix = ""] = location.split("#")
  return { url, prefix }
}

const connect = async () => {
  const { createClient } = await import("redis")
  const client = createClient({ url: server, socket: { reconnectStrategy: false } })
  client.on("error", () => {}) // what fails for it fails
  await client.connect()
  return client
}

/** Until none is found: what an ended process has sent may still be carried out after it. */
const removeKeys = async (prefix: string) => {
  const client = await connect()
  let found = true
  while (found) {
    found = false
    for await (const keys of client.scanIterator({ MATCH: `*${prefix}*`, COUNT: 1000 })) {
      if (keys.length === 0) continue
      found = true
      await client.unlink(keys)
    }
  }
  await client.close()
}

/** Fails where there is no server, before anything tries to reach it again and again. */
export const makePrefix = async () => {
  await (await connect()).close()
  const prefix = `chicory-bench-${randomUUID()}`
  return { location: `${server}#${prefix}`, remove: () => removeKeys(prefix) }
}

/** Counts the commands that this process sends from now on, by node-redis and by ioredis. */
export const countCommands = (): (() => number) => {
  let count = 0
  for (const driver of ["node-redis", "ioredis"]) subscribe(`tracing:${driver}:command:start`, () => count++)
  return () => count
}
