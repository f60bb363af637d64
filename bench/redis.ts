/** The locations of the systems on Redis: one server, with a new prefix for each measurement. */
import { randomUUID } from "node:crypto"
import { subscribe } from "node:diagnostics_channel"

export interface RedisLocation {
  readonly url: string
  /** Letters, digits and `-`. */
  readonly prefix: string
}

const server = process.env["CHICORY_TEST_REDIS_URL"] ?? "redis://127.0.0.1:6379"

/** Parses a location: the server's URL, with the prefix as its fragment. */
export const parseLocation = (location: string): RedisLocation => {
  const [url = "", prefix = ""] = location.split("#")
  return { url, prefix }
}

const connect = async () => {
  const { createClient } = await import("redis")
  const client = createClient({ url: server, socket: { reconnectStrategy: false } })
  client.on("error", () => {}) // its calls fail by themselves
  await client.connect()
  return client
}

/** Repeats until no key is found: the server may still run commands of a process that has ended. */
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

/** Returns the bytes of all keys. Those of other prefixes on the server are not counted. */
const bytesOfKeys = async (prefix: string) => {
  const client = await connect()
  let bytes = 0
  for await (const keys of client.scanIterator({ MATCH: `*${prefix}*`, COUNT: 1000 })) {
    const sizes = await Promise.all(keys.map((key) => client.memoryUsage(key, { SAMPLES: 0 })))
    for (const size of sizes) bytes += size ?? 0
  }
  await client.close()
  return bytes
}

/** Fails if the server cannot be reached, where a client would try to connect for ever. */
export const makePrefix = async () => {
  await (await connect()).close()
  const prefix = `chicory-bench-${randomUUID()}`
  return {
    location: `${server}#${prefix}`,
    bytes: () => bytesOfKeys(prefix),
    remove: () => removeKeys(prefix)
  }
}

/** Counts the commands that this process sends from now on, by node-redis and by ioredis. */
export const countCommands = (): (() => number) => {
  let count = 0
  for (const driver of ["node-redis", "ioredis"]) subscribe(`tracing:${driver}:command:start`, () => count++)
  return () => count
}
