/** From a call of `delay`, `send` or `delayAll` to what is enqueued: options read, payload encoded, sizes checked. */
import { createHash } from "node:crypto"
import { Cause, Clock, Context, DateTime, Duration, Effect, Exit, Fiber, Option, Tracer } from "effect"
import { Backend } from "../../Backend.ts"
import { Broker } from "../../Broker.ts"
import {
  EncodeError,
  type EnqueueError,
  PartialEnqueue,
  PayloadTooLarge,
  Unsupported
} from "../../EnqueueError.ts"
import type { EnqueueOptions } from "../../EnqueueOptions.ts"
import * as TaskMessage from "../../TaskMessage.ts"
import * as defaults from "../defaults.ts"
import { maxBatch, maxSize } from "../driver/driverCalls.ts"
import { fusionOf } from "../driver/fusion.ts"
import { stringify } from "../json.ts"
import { wholeMillis } from "../millis.ts"
import { dateTime, nonNegativeDuration, positiveDuration, text, wholeNumber } from "../options.ts"
import { type TaskDefinition, retentionOf } from "../task/TaskDefinition.ts"
import * as TaskId from "../task/TaskId.ts"
import { toTraceparent } from "../task/traceContext.ts"
import { type EnqueueExit, enqueue, enqueueAll, type PreparedTask, type Stores } from "./enqueue.ts"
import { isInTransaction } from "./sqlTransaction.ts"

/** Batches of a call for many that are on their way while the next one is encoded. */
const MAX_BATCHES_IN_FLIGHT = 3

/** A call, its options read. */
interface EnqueueRequest {
  readonly definition: TaskDefinition
  readonly stores: Stores
  readonly id: string | undefined
  readonly queue: string
  readonly priority: number
  readonly delayMillis: number
  readonly expiresMillis: number | undefined
  readonly now: number
  /** The producer's span, if there is one, becomes the parent of the worker's. */
  readonly traceparent: string | undefined
  /** What was asked for and the broker cannot do. */
  readonly unsupported: string | undefined
}

/** Options out of range are a defect, since this runs inside the call's effect. */
const readRequest = (
  fiber: Fiber.Fiber<unknown, unknown>,
  definition: TaskDefinition,
  options: EnqueueOptions
): EnqueueRequest => {
  const at = (option: string) => `${definition.name}: ${option}`
  const stores: Stores = {
    backend: Context.getUnsafe(fiber.context, Backend),
    broker: Context.getUnsafe(fiber.context, Broker)
  }
  const now = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
  const span = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)
  if (options.delay !== undefined && options.at !== undefined) {
    throw new RangeError(at("give either delay or at, not both"))
  }
  const delayMillis =
    options.at !== undefined
      ? wholeMillis(Math.max(0, DateTime.toEpochMillis(dateTime(at("at"), options.at)) - now))
      : options.delay !== undefined
        ? wholeMillis(Duration.toMillis(nonNegativeDuration(at("delay"), options.delay)))
        : 0
  const asked =
    options.priority === undefined
      ? definition.priority
      : wholeNumber(at("priority"), options.priority, 0, 255)
  return {
    definition,
    stores,
    id: options.id === undefined ? undefined : text(at("id"), options.id),
    queue: options.queue === undefined ? definition.queue : text(at("queue"), options.queue),
    priority: asked ?? defaults.priority,
    delayMillis,
    expiresMillis:
      options.expires === undefined
        ? definition.expiresMillis
        : Duration.toMillis(positiveDuration(at("expires"), options.expires)),
    now,
    traceparent: span === undefined ? undefined : toTraceparent(span),
    unsupported:
      unsupportedHere(fiber.context, stores) ?? unsupported(stores.broker.capabilities, asked, delayMillis)
  }
}

const isTransacting = (context: Context.Context<never>, { backend, broker }: Stores): boolean =>
  isInTransaction(context) || broker.publish.isUnbatched(context) || backend.create.isUnbatched(context)

/** A task that were there although the transaction rolls back, or before it commits, is worse than none. */
const unsupportedHere = (context: Context.Context<never>, stores: Stores): string | undefined =>
  isTransacting(context, stores) && fusionOf(stores)?.enqueue.isUnbatched(context) !== true
    ? "enqueueing inside of a SQL transaction that it is no part of (enqueue after the transaction, for instance by " +
      "sql.afterCommit, or keep tasks in that database, with SqlStore)"
    : undefined

const unsupported = (
  { maxDelayMillis, priorities }: Broker["Service"]["capabilities"],
  priority: number | undefined,
  delayMillis: number
): string | undefined => {
  if (priorities === 1 && priority !== undefined) return "priorities"
  return delayMillis > maxDelayMillis ? `a delay of more than ${maxDelayMillis} milliseconds` : undefined
}

/** What a payload becomes; nothing is enqueued when it fails. */
const prepare = (
  call: EnqueueRequest,
  payload: unknown
): Effect.Effect<PreparedTask, EncodeError | PayloadTooLarge | Unsupported, unknown> => {
  const { definition, expiresMillis, traceparent } = call
  const taskName = definition.name
  const taskId = call.id ?? TaskId.make(call.now)
  if (call.unsupported !== undefined) {
    return Effect.fail(new Unsupported({ taskId, feature: call.unsupported, store: call.stores.broker.name }))
  }
  const encoding = Effect.mapErrorEager(
    Effect.flatMapEager(definition.payload.encode(payload), ({ json, value }) =>
      Effect.mapEager(stringify(json), (encoded) => ({ encoded, value }))
    ),
    (error) => new EncodeError({ taskId, taskName, issue: error.message })
  )
  return Effect.flatMapEager(encoding, ({ encoded, value }) => {
    const bytes = defaults.bytesOf(encoded)
    if (bytes > defaults.maxBytes) {
      return Effect.fail(new PayloadTooLarge({ taskId, taskName, bytes, limit: defaults.maxBytes }))
    }
    const key =
      definition.idempotencyKey === undefined
        ? undefined
        : text(`${taskName}: idempotencyKey`, definition.idempotencyKey(value), 1000)
    return Effect.succeed<PreparedTask>({
      head: {
        v: TaskMessage.version,
        id: taskId,
        generation: 0,
        task: taskName,
        queue: call.queue,
        retries: 0,
        priority: call.priority,
        ...(expiresMillis === undefined ? {} : { expires: expiresMillis }),
        ...(traceparent === undefined ? {} : { traceparent })
      },
      payload: encoded,
      delayMillis: call.delayMillis,
      retentionMillis: retentionOf(definition, call.stores.backend),
      reservation:
        key === undefined && call.id === undefined
          ? undefined
          : { key, payloadHash: createHash("sha256").update(encoded).digest("base64url") }
    })
  })
}

/** Enqueues one task, and gives the id under which it goes. */
export const send = (
  definition: TaskDefinition,
  payload: unknown,
  options: EnqueueOptions = {}
): Effect.Effect<string, EnqueueError, unknown> =>
  Effect.withFiber((fiber) => {
    const call = readRequest(fiber, definition, options)
    return Effect.flatMapEager(prepare(call, payload), (item) => enqueue(fiber, call.stores, item))
  })

/**
 * Enqueues many, a batch at a time: while some are on their way, the next ones are encoded. Stops at the first that
 * fails, and tells which were accepted.
 */
export const sendAll = (
  definition: TaskDefinition,
  payloads: Iterable<unknown>,
  options: EnqueueOptions = {}
): Effect.Effect<Array<string>, PartialEnqueue, unknown> =>
  Effect.withFiber((fiber) => {
    const call = readRequest(fiber, definition, options)
    const ahead = isTransacting(fiber.context, call.stores) ? 0 : MAX_BATCHES_IN_FLIGHT
    const iterator = payloads[Symbol.iterator]()
    const accepted: Array<string> = []
    let refused: EnqueueError | undefined
    let isOver = false

    const prepareBatch = Effect.gen(function* () {
      const items: Array<PreparedTask> = []
      let size = 0
      while (items.length < maxBatch && size < maxSize && refused === undefined && !isOver) {
        const next = iterator.next()
        isOver = next.done === true
        if (isOver) break
        const item = yield* Effect.result(prepare(call, next.value))
        if (item._tag === "Success") {
          items.push(item.success)
          size += item.success.payload.length
        } else refused = item.failure
      }
      return items
    })
    const receive = (answers: ReadonlyArray<EnqueueExit>): void => {
      for (const answer of answers) {
        if (Exit.isSuccess(answer)) accepted.push(answer.value)
        else refused ??= Option.getOrThrowWith(Exit.findErrorOption(answer), () => Cause.squash(answer.cause))
      }
    }

    const underway: Array<Fiber.Fiber<ReadonlyArray<EnqueueExit>>> = []
    const receiveAllBut = (count: number) =>
      Effect.whileLoop({
        while: () => underway.length > count,
        body: () => Fiber.join(underway.shift()!),
        step: receive
      })
    const sendBatch = Effect.gen(function* () {
      const items = yield* prepareBatch
      if (items.length > 0) underway.push(yield* Effect.forkChild(enqueueAll(call.stores, items)))
      // what was asked for goes out in the meantime
      yield* Effect.yieldNow
      yield* receiveAllBut(ahead)
    })

    return Effect.whileLoop({
      while: () => refused === undefined && !isOver,
      body: () => sendBatch,
      step: () => {}
    }).pipe(
      // a source that breaks takes nothing back that was sent
      Effect.catchDefect((defect) => Effect.andThen(receiveAllBut(0), Effect.die(defect))),
      Effect.andThen(receiveAllBut(0)),
      Effect.flatMap(() =>
        refused === undefined
          ? Effect.succeed(accepted)
          : Effect.fail(new PartialEnqueue({ accepted, error: refused }))
      )
    )
  })
