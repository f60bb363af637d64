/** The stores of the load tests. */
import { describe } from "@effect/vitest"
import { describeWithMariadb } from "../mariadb/server.ts"
import { describeWithPostgres } from "../postgres/server.ts"
import { describeWithRabbit } from "../rabbitmq/server.ts"
import { describeWithRedis } from "../redis/server.ts"
import * as TemporaryPlaces from "../support/temporaryLocations.ts"

/** A store, and whether it tells of changes by itself. */
export interface Store {
  readonly name: string
  readonly place: TemporaryPlaces.Temporary
  readonly hints: boolean
  readonly describe: (name: string, body: () => void) => void | Promise<void>
}

/** What has no server is always there. */
const describeAtOnce: Store["describe"] = (name, body) => void describe(name, body)

export const sqlite: Store = {
  name: "SQLite",
  place: TemporaryPlaces.sqlite,
  hints: true,
  describe: describeAtOnce
}
export const redis: Store = {
  name: "Redis",
  place: TemporaryPlaces.redis,
  hints: true,
  describe: describeWithRedis
}
export const postgres: Store = {
  name: "PostgreSQL",
  place: TemporaryPlaces.postgres,
  hints: true,
  describe: describeWithPostgres
}
export const mariadb: Store = {
  name: "MariaDB",
  place: TemporaryPlaces.mariadb,
  hints: false,
  describe: describeWithMariadb
}
export const rabbitmq: Store = {
  name: "RabbitMQ with SQLite",
  place: TemporaryPlaces.rabbitmq(TemporaryPlaces.sqlite),
  hints: true,
  describe: describeWithRabbit
}

/** All of them. */
export const stores: ReadonlyArray<Store> = [sqlite, redis, postgres, mariadb, rabbitmq]

/** A suite on each of the stores. To be awaited at the top of a module. */
export const describeEach = async (
  some: ReadonlyArray<Store>,
  body: (store: Store) => void
): Promise<void> => {
  for (const store of some) await store.describe(store.name, () => body(store))
}
