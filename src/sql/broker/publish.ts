/**
 * Publishes messages.
 */
import { Effect } from "effect"
import type { Batch, Envelope } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import type { BatchRow } from "../dialect/Dialect.ts"
import { toMillis } from "../toMillis.ts"
import { DELAYED, READY } from "./MessageRow.ts"

/** The columns of a batch of new messages. */
export const newMessageColumns = {
  id: "text",
  task: "text",
  incarnation: "text",
  generation: "integer",
  queue: "text",
  priority: "integer",
  delay: "integer",
  body: "text"
} as const

/** Returns the row of such a batch. */
export const toNewMessageRow = (message: Envelope): BatchRow<typeof newMessageColumns> => ({
  id: message.id,
  task: message.task,
  incarnation: message.incarnation ?? "",
  generation: message.generation ?? 0,
  queue: message.queue,
  priority: Math.round(message.priority),
  delay: toMillis(message.delayMillis),
  body: message.body
})

/** Publishes over one database. It may be part of a caller's transaction. */
export const makePublish = ({
  batched,
  dialect: { now },
  retryOnDeadlock,
  table
}: Database): ((messages: Batch<Envelope>) => Effect.Effect<void, StoreError>) => {
  const insert = batched(
    newMessageColumns,
    (batch) =>
      `INSERT INTO ${table("messages")} (
        queue, priority, state, due_at, wake_at, id, task, incarnation, generation, body
      )
      SELECT batch.queue, batch.priority, CASE WHEN batch.delay > 0 THEN ${DELAYED} ELSE ${READY} END,
        ${now} + batch.delay, CASE WHEN batch.delay > 0 THEN ${now} + batch.delay END,
        batch.id, batch.task, batch.incarnation, batch.generation, batch.body
      FROM ${batch} WHERE batch.id IS NOT NULL`
  )
  return (messages) => Effect.asVoid(retryOnDeadlock(insert(messages.map(toNewMessageRow))))
}
