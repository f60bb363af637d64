import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { countPackets, makePrefix as makeMariadbPrefix } from "./mariadb.ts"
import { countRequests, makeSchema } from "./postgres.ts"
import { makePrefix as makeRabbitmqPrefix } from "./rabbitmq.ts"
import { countCommands, makePrefix } from "./redis.ts"
import { countStatements } from "./statements.ts"
import type { System } from "./system.ts"

export interface Place {
  readonly location: string
  /** Gathers the statistics that the planner uses, which the store gathers by itself only within a minute. */
  readonly analyze?: () => Promise<void>
  /** Returns the bytes of everything in the location, without free space that can be given back. */
  readonly bytes?: () => Promise<number>
  readonly remove: () => void | Promise<void>
}

export interface Store {
  readonly systems: Readonly<Record<string, () => Promise<System>>>
  /** 2: a process for the producer and one for the worker. 1: one process for both. */
  readonly processes: 1 | 2
  /** Makes a new, empty location for one measurement. */
  readonly makePlace: () => Place | Promise<Place>
  /** Counts the requests that a process makes to the store. */
  readonly countRequests?: () => () => number
}

const nowhere: Place = { location: "", remove: () => {} }

/** Returns the bytes of the pages in use. */
const bytesOfFile = (filename: string) => {
  const db = new DatabaseSync(filename, { timeout: 5000 })
  const pragma = (name: string) => Number(Object.values(db.prepare(`PRAGMA ${name}`).get() ?? {})[0])
  const bytes = (pragma("page_count") - pragma("freelist_count")) * pragma("page_size")
  db.close()
  return bytes
}

const makeDirectory = (): Place => {
  const directory = mkdtempSync(join(tmpdir(), "chicory-bench-"))
  const location = join(directory, "tasks.db")
  return {
    location,
    bytes: async () => bytesOfFile(location),
    remove: () => rmSync(directory, { recursive: true, force: true })
  }
}

export const stores: Readonly<Record<string, Store>> = {
  memory: {
    systems: {
      chicory: async () => (await import("./systems/chicory.ts")).memory
    },
    processes: 1,
    makePlace: () => nowhere
  },
  sqlite: {
    systems: {
      chicory: async () => (await import("./systems/chicory.ts")).sqlite,
      floor: async () => (await import("./systems/sqlite-floor.ts")).floor,
      "floor+": async () => (await import("./systems/sqlite-floor-plus.ts")).floorPlus,
      plainjob: async () => (await import("./systems/plainjob.ts")).plainjob
    },
    processes: 2,
    makePlace: makeDirectory,
    countRequests: countStatements
  },
  redis: {
    systems: {
      chicory: async () => (await import("./systems/chicory.ts")).redis,
      floor: async () => (await import("./systems/redis-floor.ts")).floor,
      "floor+": async () => (await import("./systems/redis-floor-plus.ts")).floorPlus,
      bullmq: async () => (await import("./systems/bullmq.ts")).bullmq,
      "persisted-queue": async () => (await import("./systems/persisted-queue.ts")).redis
    },
    processes: 2,
    makePlace: makePrefix,
    countRequests: countCommands
  },
  postgres: {
    systems: {
      chicory: async () => (await import("./systems/chicory.ts")).postgres,
      floor: async () => (await import("./systems/postgres-floor.ts")).floor,
      "floor+": async () => (await import("./systems/postgres-floor-plus.ts")).floorPlus,
      "pg-boss": async () => (await import("./systems/pg-boss.ts")).pgBoss,
      "graphile-worker": async () => (await import("./systems/graphile-worker.ts")).graphileWorker,
      "persisted-queue": async () => (await import("./systems/persisted-queue.ts")).postgres
    },
    processes: 2,
    makePlace: makeSchema,
    countRequests
  },
  mariadb: {
    systems: {
      chicory: async () => (await import("./systems/chicory.ts")).mariadb,
      "floor+": async () => (await import("./systems/mariadb-floor-plus.ts")).floorPlus
    },
    processes: 2,
    makePlace: makeMariadbPrefix,
    countRequests: countPackets
  },
  rabbitmq: {
    systems: {
      chicory: async () => (await import("./systems/chicory.ts")).rabbitmq,
      floor: async () => (await import("./systems/rabbitmq-floor.ts")).floor,
      "floor+": async () => (await import("./systems/rabbitmq-floor-plus.ts")).floorPlus
    },
    processes: 2,
    makePlace: makeRabbitmqPrefix,
    countRequests: countCommands
  }
}
