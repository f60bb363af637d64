/** The stores of the load tests. */
import { describe } from "@effect/vitest"
import { describeWithMariadb } from "../mariadb/server.ts"
import { describeWithPostgres } from "../postgres/server.ts"
import { describeWithRabbit } from "../rabbitmq/server.ts"
import { describeWithRedis } from "../redis/server.ts"
import * as TemporaryLocations from "../support/temporaryLocations.ts"

/** A store, and whether it hints of changes. */
export interface LoadStore {
  readonly name: string
  readonly location: TemporaryLocations.TemporaryLocation
  readonly hints: boolean
  readonly describe: (name: string, body: () => void) => void | Promise<void>
}

/** Registers a suite without a server. */
const describeAtOnce: LoadStore["describe"] = (name, body) => void describe(name, body)

export const sqlite: LoadStore = {
  name: "SQLite",
  location: TemporaryLocations.sqlite,
  hints: true,
  describe: describeAtOnce
}
export const redis: LoadStore = {
  name: "Redis",
  location: TemporaryLocations.redis,
  hints: true,
  describe: describeWithRedis
}
export const postgres: LoadStore = {
  name: "PostgreSQL",
  location: TemporaryLocations.postgres,
  hints: true,
  describe: describeWithPostgres
}
export const mariadb: LoadStore = {
  name: "MariaDB",
  location: TemporaryLocations.mariadb,
  hints: true,
  describe: describeWithMariadb
}
export const rabbitmq: LoadStore = {
  name: "RabbitMQ with SQLite",
  location: TemporaryLocations.rabbitmq(TemporaryLocations.sqlite),
  hints: true,
  describe: describeWithRabbit
}

/** All stores. */
export const stores: ReadonlyArray<LoadStore> = [sqlite, redis, postgres, mariadb, rabbitmq]

/** Registers a suite for each store. The promise is awaited at the top of a module. */
export const describeEach = async (
  some: ReadonlyArray<LoadStore>,
  body: (store: LoadStore) => void
): Promise<void> => {
  for (const store of some) await store.describe(store.name, () => body(store))
}
