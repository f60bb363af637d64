/** Prepares the calls `delay`, `send` and `delayAll`: reads options, encodes payloads, and checks sizes. */
import { Cause, Clock, Context, DateTime, Duration, Effect, Exit, Fiber, Option, Result } from "effect"
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
import { unsupportedFeature } from "../driver/checkSupport.ts"
import { maxBatch, maxSize } from "../driver/driverCalls.ts"
import { fusionOf } from "../driver/fusion.ts"
import { maxBytesOf } from "../driver/maxBytesOf.ts"
import { nameOf } from "../errorText.ts"
import { stringify } from "../json.ts"
import { wholeMillis } from "../millis.ts"
import {
  dateTime,
  durationOrZero,
  positiveDuration,
  text,
  wholeNumber,
  allowedText,
  isText
} from "../options.ts"
import { issueOf } from "../task/TaskCodec.ts"
import { type TaskDefinition, retentionOf } from "../task/TaskDefinition.ts"
import * as TaskId from "../task/TaskId.ts"
import { DESTINATION, MESSAGE_ID, type MessagingSpan } from "../task/traceContext.ts"
import { isTraced } from "../tracing.ts"
import { type EnqueueExit, enqueue, enqueueAll, type PreparedTask, type Stores } from "./enqueue.ts"
import { payloadHash } from "./payloadHash.ts"
import { inSendSpan, type TraceFields, traceFieldsOf } from "./sendSpan.ts"
import { isInTransaction } from "./sqlTransaction.ts"

/** Batches of one `delayAll` on their way while the next batch is encoded. */
const MAX_BATCHES_IN_FLIGHT = 3

/** A call with its options read. */
interface EnqueueRequest {
  readonly definition: TaskDefinition
  readonly stores: Stores
  readonly id: string | undefined
  readonly queue: string
  readonly priority: number
  readonly delayMillis: number
  readonly expiresMillis: number | undefined
  /** The most bytes of the encoded payload. */
  readonly maxBytes: number
  readonly now: number
  /** Whether the caller is likely to wait for the task's end. */
  readonly isAwaited: boolean
  /** What the call needs and the stores do not support. */
  readonly unsupported: string | undefined
}

/** Reads the options of a call. Options out of range are a defect, since this runs inside the call's effect. */
const readRequest = (
  fiber: Fiber.Fiber<unknown, unknown>,
  definition: TaskDefinition,
  options: EnqueueOptions,
  use: "result" | "id" = "id"
): EnqueueRequest => {
  const at = (option: string) => `${definition.name}: ${option}`
  const stores: Stores = {
    backend: Context.getUnsafe(fiber.context, Backend),
    broker: Context.getUnsafe(fiber.context, Broker)
  }
  const now = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
  if (options.delay !== undefined && options.at !== undefined) {
    throw new RangeError(at("give either delay or at, not both"))
  }
  const delayMillis =
    options.at !== undefined
      ? wholeMillis(Math.max(0, DateTime.toEpochMillis(dateTime(at("at"), options.at)) - now))
      : options.delay !== undefined
        ? wholeMillis(Duration.toMillis(durationOrZero(at("delay"), options.delay)))
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
    maxBytes: maxBytesOf(stores.backend, stores.broker),
    now,
    isAwaited: use === "result" && stores.backend.subscriptions?.expectsWait() === true,
    unsupported:
      unsupportedInTransaction(fiber.context, stores) ??
      unsupportedFeature(stores.broker.capabilities, asked, delayMillis)
  }
}

const isTransacting = (context: Context.Context<never>, { backend, broker }: Stores): boolean =>
  isInTransaction(context) || broker.publish.isUnbatched(context) || backend.create.isUnbatched(context)

/** Returns why enqueuing here is unsupported: the task would exist before the commit, or after a rollback. */
const unsupportedInTransaction = (context: Context.Context<never>, stores: Stores): string | undefined =>
  isTransacting(context, stores) && fusionOf(stores)?.enqueue.isUnbatched(context) !== true
    ? "enqueuing inside a SQL transaction of another database (enqueue after the transaction, for instance with " +
      "sql.afterCommit, or keep tasks in the same database with SqlStore)"
    : undefined

type Issue = ReturnType<typeof issueOf>

const MAX_KEY = 1000
const noKey = Result.succeed(undefined)

/** Computes the idempotency key by the function of the task, which may throw for some payloads. */
const keyOf = (
  { idempotencyKey }: TaskDefinition,
  payload: unknown
): Result.Result<string | undefined, Issue> => {
  if (idempotencyKey === undefined) return noKey
  return Result.flatMap(
    Result.try({
      try: () => idempotencyKey(payload),
      catch: (cause): Issue => ({
        issue: `no idempotency key: the code of the task threw ${nameOf(cause)}`,
        cause
      })
    }),
    (key) =>
      isText(key, MAX_KEY)
        ? Result.succeed(key)
        : // the key comes from the payload, so it is not shown
          Result.fail({ issue: `no idempotency key: it must be ${allowedText(MAX_KEY)}` })
  )
}

type PrepareError = EncodeError | PayloadTooLarge | Unsupported

/** Encodes and checks a payload. Nothing is enqueued when it fails. */
const prepare = (
  call: EnqueueRequest,
  payload: unknown,
  trace: TraceFields | undefined
): Effect.Effect<PreparedTask, PrepareError, unknown> => {
  const { definition, expiresMillis, maxBytes } = call
  const taskName = definition.name
  const taskId = call.id ?? TaskId.make(call.now)
  if (call.unsupported !== undefined) {
    return Effect.fail(new Unsupported({ taskId, feature: call.unsupported, store: call.stores.broker.name }))
  }
  const encoding = Effect.mapErrorEager(
    Effect.flatMapEager(definition.payload.encode(payload), ({ json, value }) =>
      Effect.mapEager(stringify(json), (encoded) => ({ encoded, json, value }))
    ),
    (error) => new EncodeError({ taskId, taskName, ...issueOf(error) })
  )
  return Effect.flatMapEager(
    encoding,
    ({ encoded, json, value }): Effect.Effect<PreparedTask, PrepareError> => {
      const bytes = defaults.bytesOf(encoded, maxBytes)
      if (bytes > maxBytes) {
        return Effect.fail(new PayloadTooLarge({ taskId, taskName, bytes, limit: maxBytes }))
      }
      const idempotencyKey = keyOf(definition, value)
      if (Result.isFailure(idempotencyKey)) {
        return Effect.fail(new EncodeError({ taskId, taskName, ...idempotencyKey.failure }))
      }
      const key = idempotencyKey.success
      const reservation =
        key === undefined && call.id === undefined
          ? undefined
          : { key, payloadHash: payloadHash(value, json) }
      return Effect.succeed({
        head: {
          v: TaskMessage.version,
          id: taskId,
          // an id that was made for this enqueue is never enqueued again by itself
          ...(call.id === undefined ? {} : { incarnation: TaskId.makeIncarnation() }),
          generation: 0,
          task: taskName,
          queue: call.queue,
          retries: 0,
          priority: call.priority,
          ...(expiresMillis === undefined ? {} : { expires: expiresMillis }),
          ...trace
        },
        payload: encoded,
        delayMillis: call.delayMillis,
        retentionMillis: retentionOf(definition, call.stores.backend),
        reservation,
        subscribe: call.isAwaited && reservation === undefined
      })
    }
  )
}

const destinationOf = ({ definition, queue, stores }: EnqueueRequest): Omit<MessagingSpan, "operation"> => ({
  system: stores.broker.name,
  queue,
  task: definition.name
})

/**
 * Enqueues one task and returns its id. `use` is what the caller needs: the task's result, which it may wait for, or its id
 * alone.
 */
export const send = (
  definition: TaskDefinition,
  payload: unknown,
  options: EnqueueOptions = {},
  use: "result" | "id" = "id"
): Effect.Effect<string, EnqueueError, unknown> =>
  Effect.withFiber((fiber) => {
    const call = readRequest(fiber, definition, options, use)
    if (isTraced(fiber.cache)) return sendTraced(fiber, call, payload)
    return Effect.flatMapEager(prepare(call, payload, undefined), (task) => enqueue(fiber, call.stores, task))
  })

const sendTraced = (
  fiber: Fiber.Fiber<unknown, unknown>,
  call: EnqueueRequest,
  payload: unknown
): Effect.Effect<string, EnqueueError, unknown> =>
  inSendSpan(destinationOf(call), (span) =>
    Effect.flatMap(prepare(call, payload, traceFieldsOf(span, call.now)), (task) => {
      span.attribute(MESSAGE_ID, task.head.id)
      return Effect.map(enqueue(fiber, call.stores, task), (id) => {
        // an earlier task, where the key or the id was taken
        if (id !== task.head.id) span.attribute(MESSAGE_ID, id)
        return id
      })
    })
  )

/** Iterators that a call of `delayAll` has begun to read. */
const begun = new WeakSet<Iterator<unknown>>()

/** Begins to read payloads. Dies if they are an iterator that was read before, in which payloads are missing. */
const begin = (definition: TaskDefinition, payloads: Iterable<unknown>): Iterator<unknown> => {
  const iterator = payloads[Symbol.iterator]()
  if (begun.has(iterator)) {
    throw new TypeError(
      `${definition.name}: the payloads of this delayAll are an iterator, which an earlier run has read: pass an iterable that can be read again, such as an array`
    )
  }
  begun.add(iterator)
  return iterator
}

/** The options of all tasks of a bulk enqueue, or a function of those of each. */
export type OptionsOfEach = EnqueueOptions | ((payload: unknown, index: number) => EnqueueOptions)

/**
 * Enqueues many tasks, in batches: while some batches are on their way, the next one is encoded. Stops at the first
 * failure, which lists the ids that were accepted. Closes the iterator of the payloads unless it was read to its end.
 */
export const sendAll = (
  definition: TaskDefinition,
  payloads: Iterable<unknown>,
  options: OptionsOfEach = {}
): Effect.Effect<Array<string>, PartialEnqueue, unknown> =>
  Effect.withFiber((fiber) => {
    const call = readRequest(fiber, definition, typeof options === "function" ? {} : options)
    return isTraced(fiber.cache)
      ? sendAllTraced(call, payloads, options)
      : sendBatches(call, payloads, options, undefined)
  })

/** Enqueues many tasks in one span. Where each has options of its own, their queue is known at the end, if it is one. */
const sendAllTraced = (
  call: EnqueueRequest,
  payloads: Iterable<unknown>,
  options: OptionsOfEach
): Effect.Effect<Array<string>, PartialEnqueue, unknown> => {
  const queues = new Set<string>()
  const optionsOf =
    typeof options === "function"
      ? (payload: unknown, index: number): EnqueueOptions => {
          const own = options(payload, index)
          queues.add(own.queue ?? call.definition.queue)
          return own
        }
      : options
  const queue = typeof options === "function" ? undefined : call.queue
  return inSendSpan({ ...destinationOf(call), queue }, (span) => {
    const describe = (ids: ReadonlyArray<string>) =>
      Effect.sync(() => {
        span.attribute("messaging.batch.message_count", ids.length)
        if (queues.size === 1) queues.forEach((one) => span.attribute(DESTINATION, one))
      })
    return sendBatches(call, payloads, optionsOf, traceFieldsOf(span, call.now)).pipe(
      Effect.tap(describe),
      Effect.tapError(({ accepted }) => describe(accepted))
    )
  })
}

const sendBatches = (
  call: EnqueueRequest,
  payloads: Iterable<unknown>,
  options: OptionsOfEach,
  trace: TraceFields | undefined
): Effect.Effect<Array<string>, PartialEnqueue, unknown> =>
  Effect.withFiber((fiber) => {
    const { definition } = call
    let index = 0
    const callOf = (payload: unknown) =>
      typeof options === "function" ? readRequest(fiber, definition, options(payload, index++)) : call
    const ahead = isTransacting(fiber.context, call.stores) ? 0 : MAX_BATCHES_IN_FLIGHT
    const iterator = begin(definition, payloads)
    const accepted: Array<string> = []
    let failure: EnqueueError | undefined
    let exhausted = false

    const prepareBatch = Effect.gen(function* () {
      const tasks: Array<PreparedTask> = []
      let size = 0
      while (tasks.length < maxBatch && size < maxSize && failure === undefined && !exhausted) {
        // an iterator that throws has ended
        exhausted = true
        const next = iterator.next()
        if (next.done === true) break
        exhausted = false
        const task = yield* Effect.result(prepare(callOf(next.value), next.value, trace))
        if (task._tag === "Success") {
          tasks.push(task.success)
          size += task.success.payload.length
        } else failure = task.failure
      }
      return tasks
    })
    const receive = (exits: ReadonlyArray<EnqueueExit>): void => {
      for (const exit of exits) {
        if (Exit.isSuccess(exit)) accepted.push(exit.value)
        else failure ??= Option.getOrThrowWith(Exit.findErrorOption(exit), () => Cause.squash(exit.cause))
      }
    }

    const inFlight: Array<Fiber.Fiber<ReadonlyArray<EnqueueExit>>> = []
    const receiveAllBut = (count: number) =>
      Effect.whileLoop({
        while: () => inFlight.length > count,
        body: () => Fiber.join(inFlight.shift()!),
        step: receive
      })
    const sendBatch = Effect.gen(function* () {
      const tasks = yield* prepareBatch
      if (tasks.length > 0) inFlight.push(yield* Effect.forkChild(enqueueAll(call.stores, tasks)))
      // lets the batcher send what was requested
      yield* Effect.yieldNow
      yield* receiveAllBut(ahead)
    })

    return Effect.whileLoop({
      while: () => failure === undefined && !exhausted,
      body: () => sendBatch,
      step: () => {}
    }).pipe(
      // an iterable that throws does not take back what was sent
      Effect.catchDefect((defect) => Effect.andThen(receiveAllBut(0), Effect.die(defect))),
      Effect.andThen(receiveAllBut(0)),
      Effect.flatMap(() =>
        failure === undefined
          ? Effect.succeed(accepted)
          : Effect.fail(new PartialEnqueue({ accepted, error: failure }))
      ),
      Effect.ensuring(
        Effect.suspend(() => (exhausted ? Effect.void : Effect.sync(() => iterator.return?.()))).pipe(
          Effect.catchCause((cause) => Effect.logWarning("Failed to close the payloads of delayAll", cause))
        )
      )
    )
  })
