/**
 * Claims messages and starts the runs of waiting tasks in one step.
 */
import { Array as Arr, Effect } from "effect"
import type { ClaimedMessage, Settlement, Start } from "../../BackendDriver.ts"
import type { Delivery } from "../../BrokerDriver.ts"
import { startFromDefaults } from "../../internal/driver/startFromDefaults.ts"
import { RowLimit } from "../answerSize.ts"
import type { BackendParts } from "../backend/SqlBackendDriver.ts"
import { type PutBack, sizeOf } from "../broker/claim.ts"
import { makeClaimSteps } from "../broker/claimSteps.ts"
import { makeSqlClaimByTask } from "../broker/setAside.ts"
import { type BrokerParts, wakeAgain } from "../broker/SqlBrokerDriver.ts"
import type { StoreError } from "../Database.ts"
import { isPermanent } from "../isPermanent.ts"
import {
  type ClaimedMessages,
  type FusedClaim,
  makeClaim as makeClaimStatement,
  makeReclaim
} from "./singleStatement.ts"

/** Claims messages, and starts those that it can start. */
type Claim = (request: FusedClaim) => Effect.Effect<ReadonlyArray<ClaimedMessage>, StoreError>

const NOTHING: ClaimedMessages = { claimed: [], leftSome: false }

const deliveryOf = ({ delivery }: ClaimedMessage): Delivery => delivery

const withoutRun = (delivery: Delivery): ClaimedMessage => ({ delivery, run: undefined })

/**
 * Prepares the undoing of claims and starts: the tasks wait again, with nothing counted (T3), and their messages are ready
 * again.
 */
const makeUndo = ({ db, notifier, settle }: BackendParts, { messages }: BrokerParts) =>
  Effect.fnUntraced(function* (claimed: ReadonlyArray<ClaimedMessage>): Effect.fn.Return<void, StoreError> {
    const runs = claimed.flatMap(({ delivery: { id }, run }): ReadonlyArray<Settlement> =>
      id === undefined || run === undefined ? [] : [{ id, token: run.token, outcome: { _tag: "Release" } }]
    )
    const changed = yield* db.inTransaction(
      Effect.gen(function* () {
        const changed = Arr.isReadonlyArrayNonEmpty(runs) ? (yield* settle(runs)).changed : []
        yield* messages.putBack(claimed.map(({ delivery }) => delivery.handle))
        yield* notifier.recordChanges(changed)
        return changed
      })
    )
    notifier.notify(changed, "end")
  })

/** Claims and starts with one statement. */
const makeInSingleStatement = (backend: BackendParts, broker: BrokerParts): Claim => {
  const { db, notifier } = backend
  const undo = makeUndo(backend, broker)
  const claimStatement = makeClaimStatement(db)
  const reclaimStatement = makeReclaim(db)
  const limit = new RowLimit()

  const claim = Effect.fnUntraced(function* (
    request: FusedClaim,
    taken: number
  ): Effect.fn.Return<ReadonlyArray<ClaimedMessage>, StoreError> {
    const { max, queues } = request
    const asked = limit.of(max)
    const limited = { ...request, max: asked }
    const once = (checksDue: boolean) => db.retryOnDeadlock(claimStatement(limited, { checksDue, taken }))
    let found = yield* once(true)
    if (found === undefined) {
      yield* db.inTransaction(broker.messages.promote(queues, max))
      found = (yield* once(false)) ?? NOTHING
    }
    const { claimed, leftSome } = found
    limit.adapt(leftSome ? claimed.length + 1 : claimed.length, claimed.length)
    if (leftSome || (asked < max && claimed.length === asked)) wakeAgain(broker, queues)
    const started = claimed.flatMap(({ delivery, run }) => (run === undefined ? [] : (delivery.id ?? [])))
    notifier.notify(started, "step")
    return claimed
  })
  const putBack = (
    claimed: ReadonlyArray<ClaimedMessage>,
    { queues }: FusedClaim
  ): Effect.Effect<void, StoreError> =>
    claimed.length === 0
      ? Effect.void
      : Effect.tap(undo(claimed), () => Effect.sync(() => wakeAgain(broker, queues)))

  const reclaim = Effect.fnUntraced(function* (
    request: FusedClaim
  ): Effect.fn.Return<ReadonlyArray<ClaimedMessage>, StoreError> {
    const found = yield* db.retryOnDeadlock(reclaimStatement(request))
    const held = found.slice(0, request.max)
    yield* putBack(found.slice(request.max), request)
    const max = request.max - held.length
    if (max <= 0) return held
    const taken = sizeOf(held.map(({ delivery }) => delivery))
    const claimed = [...held, ...(yield* claim({ ...request, max, isRetry: false }, taken))]
    // an earlier attempt that was given up may have been carried out after this one began
    const all = yield* db.retryOnDeadlock(reclaimStatement({ ...request, max: 0 }))
    const handles = new Set(claimed.map(({ delivery }) => delivery.handle))
    yield* putBack(
      all.filter(({ delivery }) => !handles.has(delivery.handle)),
      request
    )
    return claimed
  })
  return (request) => (request.isRetry === true ? reclaim(request) : claim(request, 0))
}

/**
 * Prepares the starts of claimed messages, as far as their tasks have defaults. The handle of a message is the token of its
 * run, so that the start of a claim that is repeated is answered again (S1).
 */
const makeStartClaimed = ({ notifier, start }: BackendParts) =>
  Effect.fnUntraced(function* (
    { startDefaults, worker }: FusedClaim,
    deliveries: ReadonlyArray<Delivery>
  ): Effect.fn.Return<ReadonlyArray<ClaimedMessage>, StoreError> {
    const defaults = new Map(startDefaults.map((one) => [one.task, one]))
    const starts = deliveries.flatMap((delivery): Start | ReadonlyArray<Start> => {
      const found = delivery.task === undefined ? undefined : defaults.get(delivery.task)
      return (found && startFromDefaults([found], delivery, { token: delivery.handle, worker })) ?? []
    })
    if (!Arr.isReadonlyArrayNonEmpty(starts)) return deliveries.map(withoutRun)
    const { answers, changed, ended = [] } = yield* start(starts)
    yield* notifier.recordChanges([...changed, ...ended])
    const started = new Map(starts.map(({ token }, index) => [token, answers[index]!]))
    return deliveries.map((delivery) => {
      const answer = started.get(delivery.handle)
      return answer === undefined || answer._tag === "NoRecord"
        ? withoutRun(delivery)
        : { delivery, run: { token: delivery.handle, started: answer } }
    })
  })

/** Claims and starts with several statements, in one transaction. */
const makeInTransaction = (backend: BackendParts, broker: BrokerParts): Claim => {
  const { notifier, settle } = backend
  const onPutBack = Effect.fnUntraced(function* (
    putBack: ReadonlyArray<PutBack>
  ): Effect.fn.Return<void, StoreError> {
    const releases = putBack.map(({ handle, id }): Settlement => ({
      id,
      token: handle,
      outcome: { _tag: "Release" }
    }))
    if (!Arr.isReadonlyArrayNonEmpty(releases)) return
    yield* notifier.recordChanges((yield* settle(releases)).changed)
  })
  const claim = makeClaimSteps<FusedClaim, ClaimedMessage>(broker, {
    onClaimed: makeStartClaimed(backend),
    onPutBack,
    deliveryOf
  })
  // a record that the store refuses must not keep the messages of others from the worker, which then starts each by itself
  const claimWithoutStarts = makeClaimSteps<FusedClaim, ClaimedMessage>(broker, {
    onClaimed: (_, deliveries) => Effect.succeed(deliveries.map(withoutRun)),
    onPutBack: () => Effect.void,
    deliveryOf
  })
  return (request) =>
    Effect.map(
      Effect.catchIf(claim(request), isPermanent, () => claimWithoutStarts(request)),
      ({ claimed, leftSome, putBack }) => {
        const changed = { step: new Array<string>(), end: putBack.map(({ id }) => id) }
        for (const { delivery, run } of claimed) {
          if (run === undefined || delivery.id === undefined) continue
          changed[run.started._tag === "Run" ? "step" : "end"].push(delivery.id)
        }
        notifier.notify(changed.step, "step")
        notifier.notify(changed.end, "end")
        if (leftSome) wakeAgain(broker, request.queues)
        return claimed
      }
    )
}

/** Makes the operation. */
export const makeClaim = (backend: BackendParts, broker: BrokerParts): Claim => {
  const { db } = backend
  const claim = db.dialect.writableCtes
    ? makeInSingleStatement(backend, broker)
    : makeInTransaction(backend, broker)
  const claimByTask = makeSqlClaimByTask<FusedClaim, ClaimedMessage>(broker, {
    claim,
    deliveryOf,
    // the worker starts what comes without a run
    toClaimed: withoutRun
  })
  return (request) => db.outsideTransaction(claimByTask(request))
}
