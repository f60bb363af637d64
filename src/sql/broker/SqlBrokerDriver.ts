/**
 * The broker's port over SQL: the operations, each in its transaction, and who is told of new messages.
 */
import { Effect } from "effect"
import type { ClaimRequest, BrokerDriver, Envelope } from "../../BrokerDriver.ts"
import type { Database, StoreError } from "../Database.ts"
import { isPermanent } from "../isPermanent.ts"
import type { ReadySignal } from "../notify/ReadySignal.ts"
import type { Messages } from "./Messages.ts"

/** What the driver shares with others of the same store. */
export interface BrokerParts {
  readonly db: Database
  readonly messages: Messages
  readonly readiness: ReadySignal
}

const PRIORITIES = 256
/** A hundred years. */
const MAX_DELAY_MILLIS = 100 * 365 * 24 * 60 * 60 * 1000

/** Tells of messages that came. */
export const notifyPublished =
  ({ readiness }: BrokerParts) =>
  (batch: ReadonlyArray<Envelope>): void => {
    const queues = new Set<string>()
    let firstMillis = Infinity
    for (const { delayMillis, queue } of batch) {
      queues.add(queue)
      firstMillis = Math.min(firstMillis, delayMillis)
    }
    readiness.notify(queues, firstMillis)
  }

/** The driver. */
export const make = (
  parts: BrokerParts,
  options: { readonly name: string; readonly store: object }
): BrokerDriver<StoreError> => {
  const { db, messages, readiness } = parts
  const { outsideTransaction: apart } = db
  const tellPublished = notifyPublished(parts)

  // a look first: a claim that finds nothing keeps no writer waiting
  const claim = (asked: ClaimRequest) =>
    Effect.flatMap(messages.status(asked.queues), ({ due, ready }) => {
      if (due) {
        return db.inTransaction(
          Effect.andThen(messages.promote(asked.queues, asked.max), messages.claim(asked))
        )
      }
      return ready ? db.inTransaction(messages.claim(asked)) : Effect.succeed([])
    })
  const claimAgain = (asked: ClaimRequest) =>
    Effect.flatMap(db.inTransaction(messages.reclaim(asked)), (held) =>
      held.length >= asked.max
        ? Effect.succeed(held)
        : Effect.map(claim({ ...asked, max: asked.max - held.length }), (more) => [...held, ...more])
    )

  return {
    name: options.name,
    capabilities: {
      priorities: PRIORITIES,
      repeatableClaims: true,
      prefersLargeBatches: db.dialect.name !== "sqlite",
      lease: "store",
      maxDelayMillis: MAX_DELAY_MILLIS
    },
    store: options.store,
    batchKey: db.transactionOf,
    isPermanent,
    publish: (batch) =>
      Effect.andThen(
        db.inCallerTransaction(messages.publish(batch)),
        db.afterCommit(() => tellPublished(batch))
      ),
    claim: (asked) => apart(asked.isRetry === true ? claimAgain(asked) : claim(asked)),
    ready: readiness.ready,
    renew: (handles, leaseMillis) => apart(db.inTransactionIfNeeded(messages.renew(handles, leaseMillis))),
    ack: (handles) => apart(db.inTransactionIfNeeded(messages.ack(handles))),
    release: (releases) =>
      Effect.map(apart(db.inTransaction(messages.release(releases))), ({ firstMillis, queues }) =>
        readiness.notify(queues, firstMillis)
      ),
    reject: (rejections) => apart(db.inTransaction(messages.reject(rejections))),
    counts: (queues) => apart(messages.counts(queues)),
    purge: (queue, limit) => apart(db.inTransaction(messages.purge(queue, limit)))
  }
}
