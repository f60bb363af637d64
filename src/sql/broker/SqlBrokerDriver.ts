/**
 * Implements the broker's port over SQL: runs each operation in its transaction, and notifies of new messages.
 */
import { Effect } from "effect"
import type { Batch, BrokerDriver, ClaimRequest, Delivery, Envelope } from "../../BrokerDriver.ts"
import type { Outages } from "../../internal/driver/Outages.ts"
import type { Database, StoreError } from "../Database.ts"
import { isPermanent } from "../isPermanent.ts"
import type { ReadySignal } from "../notify/ReadySignal.ts"
import { makeAck } from "./ack.ts"
import { makeClaim } from "./claim.ts"
import { makeClaimSteps } from "./claimSteps.ts"
import { makeCounts } from "./counts.ts"
import { makeLanes } from "./lanes.ts"
import { makePublish } from "./publish.ts"
import { makePurge } from "./purge.ts"
import type { QueueStatus } from "./queueStatus.ts"
import { makeRelease } from "./release.ts"
import { makeRenew } from "./renew.ts"
import { makeSetAside, makeSqlClaimByTask } from "./setAside.ts"

/** The operations on messages. */
export type MessageOperations = ReturnType<typeof makeMessageOperations>

/** Makes the operations over one database. */
export const makeMessageOperations = (db: Database) => {
  const lanes = makeLanes(db)
  return {
    publish: makePublish(db),
    ...makeClaim(db, lanes),
    lanes,
    renew: makeRenew(db),
    ack: makeAck(db),
    ...makeRelease(db),
    counts: makeCounts(db, lanes),
    purge: makePurge(db, lanes)
  }
}

/** The parts that the driver shares with the fused operations. */
export interface BrokerParts {
  readonly db: Database
  readonly messages: MessageOperations
  readonly queueStatus: (queues: Batch<string>) => Effect.Effect<QueueStatus, StoreError>
  readonly readySignal: ReadySignal
  readonly outages: Outages
}

const PRIORITIES = 256
/** A hundred years. */
const MAX_DELAY_MILLIS = 100 * 365 * 24 * 60 * 60 * 1000

/** Notifies workers of messages that were published. */
export const notifyPublished = ({ readySignal }: BrokerParts, batch: ReadonlyArray<Envelope>): void => {
  const queues = new Set<string>()
  let firstMillis = Infinity
  for (const { delayMillis, queue } of batch) {
    queues.add(queue)
    firstMillis = Math.min(firstMillis, delayMillis)
  }
  readySignal.notify(queues, firstMillis)
}

/** Wakes workers for the messages that a claim of the queues left. */
export const wakeAgain = ({ readySignal }: BrokerParts, queues: Batch<string>): void =>
  readySignal.wakeAgain(queues)

/** Claims messages of every task. */
const makeClaimAny = (
  parts: BrokerParts
): ((request: ClaimRequest) => Effect.Effect<ReadonlyArray<Delivery>, StoreError>) => {
  const claim = makeClaimSteps<ClaimRequest, Delivery>(parts, {
    onClaimed: (_, deliveries) => Effect.succeed(deliveries),
    onPutBack: () => Effect.void,
    deliveryOf: (delivery) => delivery
  })
  return (request) =>
    Effect.map(claim(request), ({ claimed, leftSome }) => {
      if (leftSome) wakeAgain(parts, request.queues)
      return claimed
    })
}

/** Makes the driver. */
export const make = (
  parts: BrokerParts,
  options: { readonly name: string; readonly store: object }
): BrokerDriver<StoreError> => {
  const { db, messages, readySignal } = parts
  const { outsideTransaction } = db
  const claim = makeSqlClaimByTask<ClaimRequest, Delivery>(parts, {
    claim: makeClaimAny(parts),
    deliveryOf: (delivery) => delivery,
    toClaimed: (delivery) => delivery
  })

  return {
    name: options.name,
    capabilities: {
      priorities: PRIORITIES,
      repeatableClaims: true,
      prefersLargeBatches: !db.dialect.isLocalFile,
      maxBytes: db.maxBytes,
      sharedConnections: db.connections,
      lease: "store",
      maxDelayMillis: MAX_DELAY_MILLIS
    },
    store: options.store,
    batchKey: db.transactionOf,
    isPermanent,
    publish: (batch) =>
      Effect.andThen(
        db.inCallerTransaction(messages.publish(batch)),
        db.afterCommit(() => notifyPublished(parts, batch))
      ),
    claim: (request) => outsideTransaction(claim(request)),
    setAside: makeSetAside(parts),
    ready: readySignal.ready,
    renew: (handles, leaseMillis) =>
      outsideTransaction(db.inTransactionIfNeeded(messages.renew(handles, leaseMillis))),
    ack: (handles) => outsideTransaction(db.inTransactionIfNeeded(messages.ack(handles))),
    release: (releases) =>
      Effect.map(
        outsideTransaction(db.inTransaction(messages.release(releases))),
        ({ firstMillis, queues }) => readySignal.notify(queues, firstMillis)
      ),
    reject: (rejections) => outsideTransaction(db.inTransaction(messages.reject(rejections))),
    counts: (queues) => db.readsInCallerTransaction(messages.counts(queues)),
    purge: (queue, limit) => outsideTransaction(db.inTransaction(messages.purge(queue, limit)))
  }
}
