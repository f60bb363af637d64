/**
 * Coalesces the requests of concurrent fibers into few calls to a store.
 *
 * Requests of one turn of the scheduler go out together, at most `maxBatch` items and `maxSize` characters a call, and
 * at most `concurrency` calls at a time; requests that come meanwhile make the next batch. A caller that has been alone does
 * not wait for the end of the turn. Every caller waits for its own answer, so a producer that is faster than its store is held
 * back. While the store is away, all waiting requests fail with the first call that does. After a slow call that failed, the
 * next batch is half as large, and grows again with every call that succeeds.
 */
import { Array as Arr, Cause, Clock, type Context, Effect, Exit, type Scope } from "effect"
import { BatchLimit } from "./BatchLimit.ts"
import { completedSync } from "./completedSync.ts"

/** Sends a request and calls `onExit` once, possibly at once: for callers that need no fiber to wait in. */
export type Request<out A, out E> = (onExit: (exit: Exit.Exit<A, E>) => void) => Cancelable

/** A request that was sent. */
export interface Cancelable {
  /** Drops the answer. A request that is not on its way yet is not sent. */
  cancel(): void
}

const nothingToCancel: Cancelable = { cancel: () => {} }

/** Returns a request whose answer is known. */
export const resolved =
  <A, E>(exit: Exit.Exit<A, E>): Request<A, E> =>
  (onExit) => {
    onExit(exit)
    return nothingToCancel
  }

/** Sends a request and waits for its answer; interrupting cancels the request. */
export const toEffect = <A, E>(request: Request<A, E>): Effect.Effect<A, E> =>
  Effect.callback((resume) => {
    const sent = request(resume)
    return Effect.sync(() => sent.cancel())
  })

/** Sends the second request after the first has succeeded. */
export const andThen =
  <A, E, B, E2>(first: Request<A, E>, second: Request<B, E2>): Request<B, E | E2> =>
  (onExit) => {
    let next: Cancelable | undefined
    const sent = first((exit) => {
      if (Exit.isSuccess(exit)) next = second(onExit)
      else onExit(Exit.failCause(exit.cause))
    })
    return { cancel: () => (next ?? sent).cancel() }
  }

/** A batched operation. */
export interface Batcher<in In, out Out, out E> {
  /** Requests one item. It joins no transaction. */
  readonly request: (item: In) => Request<Out, E>
  /** Whether `one` and `many` make separate calls for a caller with the context, in its transaction. */
  readonly isUnbatched: (context: Context.Context<never>) => boolean
  /** Requests one item. Interrupting the caller cancels the request unless it is on its way. */
  readonly one: (item: In) => Effect.Effect<Out, E>
  /** Requests many items; each has its own answer, in order. */
  readonly many: (items: ReadonlyArray<In>) => Effect.Effect<Array<Exit.Exit<Out, E>>>
}

/** How a batcher calls its store. */
export interface Options<in out In, in out Out, in out E> {
  /**
   * Answers the first items of a batch, in order: all of them, or fewer, but at least one. The rest is sent again, before
   * all other requests.
   */
  readonly run: (batch: Arr.NonEmptyReadonlyArray<In>) => Effect.Effect<ReadonlyArray<Out>, E>
  /** Whether an error is the fault of an item, so that a batch without that item may succeed. */
  readonly isPermanent: (error: E) => boolean
  /** Makes the error of a request that comes after the close, or that waits when it comes. */
  readonly toClosedError: () => E
  /** Items per call, at most. */
  readonly maxBatch: number
  /** Characters per call, at most; a larger item goes alone. */
  readonly maxSize: number
  /** Returns the characters of an item. Default: items are too small to be counted. */
  readonly sizeOf?: ((item: In) => number) | undefined
  /** Calls on their way, at most. */
  readonly concurrency: number
  /**
   * Whether a large batch is split in two where no call is on its way, so that the callers of the first half continue
   * while the store works on the second. It pays where callers come back at once with more, as producers do, and only
   * with a store that does not answer synchronously.
   */
  readonly splitWhenIdle?: boolean | undefined
  /** A caller whose context has a key is not batched: its call runs in its own context, and so in its transaction. */
  readonly key?: ((context: Context.Context<never>) => unknown) | undefined
}

/** An item and the callback of its caller. */
class Entry<out In, in Out, in E> implements Cancelable {
  readonly item: In
  canceled = false
  private readonly onExit: (exit: Exit.Exit<Out, E>) => void

  constructor(item: In, onExit: (exit: Exit.Exit<Out, E>) => void) {
    this.item = item
    this.onExit = onExit
  }

  cancel(): void {
    this.canceled = true
  }

  complete(exit: Exit.Exit<Out, E>): void {
    if (!this.canceled) this.onExit(exit)
  }
}

/** Batches from this size on are split by `splitWhenIdle`. */
const SPLIT_FROM = 32

/** A failed call that took this long has waited for a store that is away. */
const SLOW_NANOS = 1_000_000_000n

/** Lone calls in a row after which one waits for a turn, so that the rest of the process has one. */
const MAX_LONE_CALLS = 64

const uncounted = () => 0

/** Waits for the code that runs now, and not for the rest of the turn. */
const nextMicrotask = Effect.callback<void>((resume) => queueMicrotask(() => resume(Effect.void)))

/** Returns how many of the first items fit into one call: at least one, at most `most`. */
const countFitting = <A>(
  items: ReadonlyArray<A>,
  most: number,
  maxSize: number,
  sizeOf: (item: A) => number
): number => {
  let size = 0
  for (let count = 0; count < most; count++) {
    size += sizeOf(items[count]!)
    if (size > maxSize && count > 0) return count
  }
  return most
}

/** Batches requests; `concurrency` fibers each run `sendForever`. */
class Coalescer<in out In, in out Out, in out E> implements Batcher<In, Out, E> {
  private readonly options: Options<In, Out, E>
  private readonly clock: Clock.Clock
  private pending: Array<Entry<In, Out, E>> = []
  /** The number of all requests so far, including the pending ones. */
  private requested = 0
  private closed = false
  private callsInFlight = 0
  /** Calls in a row that had one request each. */
  private loneCalls = 0
  /** Items per call at present: fewer than `maxBatch` after slow calls that failed. */
  private readonly batchLimit: BatchLimit
  /** The last answer did not come in the turn of its call. */
  private storeIsAsync = false
  /** The pending items come from one `many` or are left over from a batch: they are not split again. */
  private keepTogether = false
  private readonly idleSenders: Array<(wake: Effect.Effect<void>) => void> = []

  constructor(options: Options<In, Out, E>, clock: Clock.Clock) {
    this.options = options
    this.clock = clock
    this.batchLimit = new BatchLimit(options.maxBatch)
  }

  readonly isUnbatched = () => false

  readonly request =
    (item: In): Request<Out, E> =>
    (onExit) =>
      this.push(item, onExit)

  readonly one = (item: In) => toEffect(this.request(item))

  readonly many = (items: ReadonlyArray<In>) =>
    Effect.callback<Array<Exit.Exit<Out, E>>>((resume) => {
      if (items.length === 0) return resume(Effect.succeed([]))
      const exits: Array<Exit.Exit<Out, E>> = Array.from({ length: items.length })
      let missing = items.length
      this.keepTogether = true
      const sent = items.map((item, i) =>
        this.push(item, (exit) => {
          exits[i] = exit
          if (--missing === 0) resume(Effect.succeed(exits))
        })
      )
      return Effect.sync(() => {
        for (const one of sent) one.cancel()
      })
    })

  /** Fails all pending requests, and every later one at once. */
  readonly close = Effect.sync(() => {
    this.closed = true
    const waiting = this.pending
    this.pending = []
    for (const entry of waiting) entry.complete(Exit.fail(this.options.toClosedError()))
  })

  private push(item: In, onExit: (exit: Exit.Exit<Out, E>) => void): Cancelable {
    const entry = new Entry(item, onExit)
    if (this.closed) {
      entry.complete(Exit.fail(this.options.toClosedError()))
      return entry
    }
    this.requested++
    this.pending.push(entry)
    const { length } = this.pending
    if (length === 1 || length > this.options.maxBatch) this.wakeSender()
    return entry
  }

  private wakeSender(): void {
    this.idleSenders.pop()?.(Effect.void)
  }

  private readonly untilPending = Effect.callback<void>((resume) => {
    if (this.pending.length > 0) return resume(Effect.void)
    this.idleSenders.push(resume)
    return Effect.sync(() => this.idleSenders.splice(this.idleSenders.indexOf(resume), 1))
  })

  /** Takes the next batch of the pending requests. */
  private take(): Array<Entry<In, Out, E>> {
    const { maxSize, sizeOf, splitWhenIdle } = this.options
    const { pending } = this
    const limit = this.batchLimit.current
    const splits =
      splitWhenIdle === true &&
      this.storeIsAsync &&
      !this.keepTogether &&
      this.callsInFlight === 0 &&
      pending.length >= SPLIT_FROM &&
      pending.length <= limit
    const most = splits ? pending.length >> 1 : Math.min(limit, pending.length)
    const count =
      sizeOf === undefined ? most : countFitting(pending, most, maxSize, ({ item }) => sizeOf(item))
    const taken = pending.length === count ? pending : pending.slice(0, count)
    this.pending = taken === pending ? [] : pending.slice(count)
    this.keepTogether = this.pending.length > 0
    if (this.keepTogether) this.wakeSender()
    return taken.filter((entry) => !entry.canceled)
  }

  /** Sends a batch. One that fails through the fault of an item is tried again in halves, so that only that item fails. */
  private send(
    entries: ReadonlyArray<Entry<In, Out, E>>,
    onStoreFailed: (exit: Exit.Exit<never, E>) => void
  ): Effect.Effect<void> {
    if (!Arr.isReadonlyArrayNonEmpty(entries)) return Effect.void
    const { isPermanent, run } = this.options
    const batch = Arr.map(entries, ({ item }) => item)
    return Effect.flatMap(Effect.exit(Effect.suspend(() => run(batch))), (exit) => {
      if (Exit.isSuccess(exit)) {
        this.complete(entries, exit.value)
        return Effect.void
      }
      const error = Cause.findError(exit.cause)
      const isItemsFault = error._tag === "Success" && isPermanent(error.success)
      if (entries.length > 1 && isItemsFault) {
        const half = entries.length >> 1
        return Effect.andThen(
          this.send(entries.slice(0, half), onStoreFailed),
          this.send(entries.slice(half), onStoreFailed)
        )
      }
      const failed = Exit.failCause(exit.cause)
      for (const entry of entries) entry.complete(failed)
      if (!isItemsFault) onStoreFailed(failed)
      return Effect.void
    })
  }

  /** Completes the first entries with the answers, and requests the others again. */
  private complete(entries: ReadonlyArray<Entry<In, Out, E>>, answers: ReadonlyArray<Out>): void {
    const answered = Math.min(answers.length, entries.length)
    for (let i = 0; i < answered; i++) entries[i]!.complete(Exit.succeed(answers[i]!))
    this.batchLimit.onSuccess()
    if (answered === entries.length) return
    const rest = entries.slice(answered)
    if (this.closed) {
      for (const entry of rest) entry.complete(Exit.fail(this.options.toClosedError()))
      return
    }
    this.pending = [...rest, ...this.pending]
    this.keepTogether = true
    this.wakeSender()
  }

  /** Fails those of the first `items` requests that still wait. */
  private failWaiting(items: number, exit: Exit.Exit<never, E>): void {
    const count = Math.max(0, items - (this.requested - this.pending.length))
    const waiting = this.pending.slice(0, count)
    this.pending = this.pending.slice(count)
    for (const entry of waiting) entry.complete(exit)
  }

  private readonly sendNext = Effect.suspend(() => {
    const taken = this.take()
    if (taken.length > 0) {
      this.loneCalls = taken.length === 1 && this.pending.length === 0 ? this.loneCalls + 1 : 0
    }
    const requestedBefore = this.requested
    const sentAt = this.clock.monotonicTimeNanosUnsafe()
    // requests that have waited as long as this call for a store that is away fail with it
    const onStoreFailed = (exit: Exit.Exit<never, E>) => {
      if (this.clock.monotonicTimeNanosUnsafe() - sentAt < SLOW_NANOS) return
      this.batchLimit.onFailure(taken.length)
      this.failWaiting(requestedBefore, exit)
    }
    this.callsInFlight++
    return completedSync(this.send(taken, onStoreFailed), (sync) => {
      this.callsInFlight--
      this.storeIsAsync = !sync
    })
  })

  /** The rest of the turn may request more, unless the last calls had one request each and none is on its way. */
  private readonly untilComplete = Effect.suspend(() =>
    this.loneCalls % MAX_LONE_CALLS === 0 || this.callsInFlight > 0 ? Effect.yieldNow : nextMicrotask
  )

  readonly sendForever = this.untilPending.pipe(
    Effect.andThen(this.untilComplete),
    Effect.andThen(Effect.uninterruptible(this.sendNext)),
    // without a turn after each call, beside the one before it
    Effect.forever({ disableYield: true })
  )
}

/** Lets callers whose context has a key call the store by themselves. */
const withUnbatchedCallers = <In, Out, E>(
  batched: Batcher<In, Out, E>,
  { maxBatch, maxSize, run, sizeOf = uncounted }: Options<In, Out, E>,
  isUnbatched: Batcher<In, Out, E>["isUnbatched"]
): Batcher<In, Out, E> => {
  const chunksOf = (items: ReadonlyArray<In>): ReadonlyArray<Arr.NonEmptyReadonlyArray<In>> => {
    const chunks: Array<Arr.NonEmptyReadonlyArray<In>> = []
    let rest = items
    while (Arr.isReadonlyArrayNonEmpty(rest)) {
      const count = countFitting(rest, Math.min(maxBatch, rest.length), maxSize, sizeOf)
      const [chunk, more] = Arr.splitAtNonEmpty(rest, count)
      chunks.push(chunk)
      rest = more
    }
    return chunks
  }
  const runChunk = (batch: Arr.NonEmptyReadonlyArray<In>): Effect.Effect<Array<Exit.Exit<Out, E>>> =>
    Effect.flatMap(Effect.exit(run(batch)), (exit) => {
      if (Exit.isFailure(exit))
        return Effect.succeed(Arr.makeBy(batch.length, () => Exit.failCause(exit.cause)))
      const answers = Arr.map(exit.value, (answer) => Exit.succeed(answer))
      const rest = batch.slice(answers.length)
      return Arr.isArrayNonEmpty(rest)
        ? Effect.map(runChunk(rest), (more) => [...answers, ...more])
        : Effect.succeed(answers)
    })
  return {
    request: batched.request,
    isUnbatched,
    one: (item) =>
      Effect.withFiber(({ context }) =>
        isUnbatched(context) ? Effect.map(run([item]), (answers) => answers[0]!) : batched.one(item)
      ),
    many: (items) =>
      Effect.withFiber(({ context }) =>
        isUnbatched(context)
          ? Effect.map(Effect.forEach(chunksOf(items), runChunk), Arr.flatten)
          : batched.many(items)
      )
  }
}

/**
 * Makes a batcher whose calls run in fibers of the scope, outside any caller's context. When the scope closes, calls that
 * are on their way are awaited, and every other request fails.
 */
export const make = Effect.fnUntraced(function* <In, Out, E>(
  options: Options<In, Out, E>
): Effect.fn.Return<Batcher<In, Out, E>, never, Scope.Scope> {
  const coalescer = new Coalescer(options, yield* Clock.Clock)
  yield* Effect.addFinalizer(() => coalescer.close)
  for (let i = 0; i < options.concurrency; i++) yield* Effect.forkScoped(coalescer.sendForever)
  const { key } = options
  return key === undefined
    ? coalescer
    : withUnbatchedCallers(coalescer, options, (context) => key(context) !== undefined)
})
