/**
 * Notifications between the processes of a store, by LISTEN and NOTIFY of PostgreSQL.
 *
 * They are hints: a lost connection loses them. NOTIFY takes a lock at the commit that all notifying transactions
 * share, so it is part of no transaction that does work: ids are collected, and sent after the commit by separate
 * statements, one at a time, and only to topics for which another process has registered. Such a statement writes nothing
 * that has to reach the disk.
 */
import { createHash } from "node:crypto"
import { Effect, type Scope } from "effect"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import * as channelDelivery from "./channelDelivery.ts"
import type { ListenClient } from "./clientCapabilities.ts"
import { type Channel, ECHO, type Notifications } from "./notificationProtocol.ts"
import * as NotificationReceiver from "./NotificationReceiver.ts"
import * as NotificationSender from "./NotificationSender.ts"
import * as TopicRegistrations from "./TopicRegistrations.ts"

/** Channels are names of the whole database, of 63 bytes at most: a hash of the schema and the prefix. */
const channelName = Effect.fnUntraced(function* ({ reader, run, tableName }: Database) {
  const read = reader<{ readonly name: string | null }>("(schema)", { name: Row.orNull(Row.text) })
  const [schema] = yield* Effect.flatMap(run("SELECT current_schema()::text AS name"), read)
  const place = `${schema?.name ?? ""}.${tableName("")}`
  return `chicory_${createHash("sha256").update(place).digest("hex").slice(0, 32)}`
})

const notifySelf = `SELECT pg_notify(?, ?), set_config('synchronous_commit', 'off', true)`

const echoOf = (source: string): string => JSON.stringify({ source, topic: ECHO, ids: [] })

/** Makes the notifications over one database, until the scope closes. `source` is the id of this process. */
export const make = Effect.fnUntraced(function* (
  db: Database,
  client: ListenClient,
  source: string
): Effect.fn.Return<Notifications, StoreError, Scope.Scope> {
  const channel: Channel = { name: yield* channelName(db), source }
  const notify = yield* NotificationSender.make(source, channelDelivery.make(db, channel))
  const receiver = yield* NotificationReceiver.make(db, client, channel)
  const listeners = db.table("listeners")
  const registrations = yield* TopicRegistrations.make(
    db,
    {
      source,
      renewMillis: NotificationReceiver.ECHO_MILLIS,
      afterRenewal: db.outsideTransaction(db.run(notifySelf, [channel.name, echoOf(source)])),
      removeOld: (count) => `DELETE FROM ${listeners} WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM ${listeners} WHERE until <= ${db.dialect.now} LIMIT ${count} FOR UPDATE SKIP LOCKED
      ))`
    },
    receiver
  )
  return {
    notify,
    subscribe: receiver.subscribe,
    registerTopics: registrations.register,
    trim: registrations.trim
  }
})
