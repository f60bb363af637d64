import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { countCommands, makePrefix } from "./redis.ts"
import { countStatements } from "./statements.ts"
import type { System } from "./system.ts"

export interface Place {
  readonly location: string
  readonly remove: () => void | Promise<void>
}

export interface Store {
  readonly systems: Readonly<Record<string, () => Promise<System>>>
  /** Producer and worker in processes of their own, or both in one. */
  readonly processes: 1 | 2
  /** A fresh, empty place for one measurement. */
  readonly makePlace: () => Place | Promise<Place>
  /** For W4-load: counts what a process asks of the store. */
  readonly countRequests?: () => () => number
}

const nowhere: Place = { location: "", remove: () => {} }

const makeDirectory = (): Place => {
  const directory = mkdtempSync(join(tmpdir(), "chicory-bench-"))
  return {
    location: join(directory, "tasks.db"),
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
      bullmq: async () => (await import("./systems/bullmq.ts")).bullmq,
      "persisted-queue": async () => (await import("./systems/persisted-queue.ts")).persistedQueue
    },
    processes: 2,
    makePlace: makePrefix,
    countRequests: countCommands
  }
}
