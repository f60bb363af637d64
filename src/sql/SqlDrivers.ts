/**
 * Both ports over the tables of one store.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql"
import type { Driver as BackendDriver } from "../BackendDriver.ts"
import type { Driver as BrokerDriver } from "../BrokerDriver.ts"
import * as Changes from "./Changes.ts"
import * as Database from "./Database.ts"
import * as Enqueuing from "./Enqueuing.ts"
import * as Messages from "./Messages.ts"
import * as Readiness from "./Readiness.ts"
import * as Records from "./Records.ts"
import * as Running from "./Running.ts"
import * as SqlBackendDriver from "./SqlBackendDriver.ts"
import * as SqlBrokerDriver from "./SqlBrokerDriver.ts"
import * as SqlFusion from "./SqlFusion.ts"
import type { Wake } from "./Wake.ts"

/** What the drivers need besides their tables. */
export interface Options extends Database.Options {
  /** Names the store in errors and metrics. */
  readonly name: string
  readonly durable: boolean
  readonly wake: Wake
}

/** The two drivers. Either may be used without the other. */
export interface Drivers {
  readonly backend: BackendDriver<Database.StoreError>
  readonly broker: BrokerDriver<Database.StoreError>
}

/** Over tables that `Migrations.run` brought up to date. */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<Drivers, never, SqlClient.SqlClient> {
  const db = yield* Database.make(options)
  const records = Records.make(db)
  const messages = Messages.make(db)
  const backend: SqlBackendDriver.Parts = {
    db,
    records,
    changes: Changes.make(db, options.wake, crypto.randomUUID()),
    enqueuing: Enqueuing.make(db, records),
    running: Running.make(db, records)
  }
  const broker: SqlBrokerDriver.Parts = { db, messages, readiness: Readiness.make(messages, options.wake) }
  const store = {}
  return {
    backend: { ...SqlBackendDriver.make(backend, options), fusion: SqlFusion.make(backend, broker, store) },
    broker: SqlBrokerDriver.make(broker, { ...options, store })
  }
})
