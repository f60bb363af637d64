/**
 * Coalesces what concurrent fibers ask of a store into few calls.
 *
 * What is asked for in one turn of the scheduler goes out together, at most `maxBatch` items and `maxSize` characters a
 * call, and `concurrency` calls at a time; what is asked for meanwhile makes the next batch. Every caller waits for its
 * own answer, so a producer that is faster than its store is held back; while the store is away, all of them fail with the
 * first call that does.
 */
import { Array as Arr, Cause, Clock, type Context, Effect, Exit, type Scope } from "effect"
import { completedSync } from "./completedSync.ts"

/** Asks, and is told the answer once, possibly at once: for those who need not wait in a fiber of their own. */
export type Request<out A, out E> = (answer: (exit: Exit.Exit<A, E>) => void) => Cancelable

/** What was asked for. */
export interface Cancelable {
  /** The answer is no longer wanted. What is not on its way yet is not sent. */
  cancel(): void
}

const nothing: Cancelable = { cancel: () => {} }

/** What is known already. */
export const resolved =
  <A, E>(exit: Exit.Exit<A, E>): Request<A, E> =>
  (answer) => {
    answer(exit)
    return nothing
  }

/** Waits for the answer; interrupting withdraws. */
export const toEffect = <A, E>(ask: Request<A, E>): Effect.Effect<A, E> =>
  Effect.callback((resume) => {
    const asked = ask(resume)
    return Effect.sync(() => asked.cancel())
  })

/** Asks for one thing after the other, if the first is answered well. */
export const andThen =
  <A, E, B, E2>(first: Request<A, E>, second: Request<B, E2>): Request<B, E | E2> =>
  (answer) => {
    let next: Cancelable | undefined
    const asked = first((exit) => {
      if (Exit.isSuccess(exit)) next = second(answer)
      else answer(Exit.failCause(exit.cause))
    })
    return { cancel: () => (next ?? asked).cancel() }
  }

/** A batched operation. */
export interface Batcher<in In, out Out, out E> {
  /** One item; it joins no transaction. */
  readonly request: (item: In) => Request<Out, E>
  /** Whether a caller with that context has calls of its own, in a transaction: `one` and `many` make them. */
  readonly isUnbatched: (context: Context.Context<never>) => boolean
  /** One item. Interrupting the caller withdraws it, if it is not on its way yet. */
  readonly one: (item: In) => Effect.Effect<Out, E>
  /** Many items; each has its own answer, in order. */
  readonly many: (items: ReadonlyArray<In>) => Effect.Effect<Array<Exit.Exit<Out, E>>>
}

/** How a batcher calls its store. */
export interface Options<in out In, in out Out, in out E> {
  readonly run: (batch: Arr.NonEmptyReadonlyArray<In>) => Effect.Effect<ReadonlyArray<Out>, E>
  /** Whether an error is the fault of an item, so that a batch without it may do better. */
  readonly isPermanent: (error: E) => boolean
  /** Items that one call carries at most. */
  readonly maxBatch: number
  /** Characters that one call carries at most; an item that is larger goes alone. */
  readonly maxSize: number
  /** The characters of an item. Default: too few to be counted. */
  readonly sizeOf?: ((item: In) => number) | undefined
  /** Calls on their way at most. */
  readonly concurrency: number
  /**
   * Whether a large batch goes out in two halves where nothing is on its way: so the callers of the one go on while
   * the store is at the other. It pays where callers come back at once with more, as producers do, and only with a
   * store that has to be waited for.
   */
  readonly splitWhenIdle?: boolean | undefined
  /** A caller with a key of its own is not coalesced: its call runs in its own context, that is, its transaction. */
  readonly key?: ((context: Context.Context<never>) => unknown) | undefined
}

/** An item, and who is told the answer. */
class Entry<out In, in Out, in E> implements Cancelable {
  readonly item: In
  withdrawn = false
  private readonly answer: (exit: Exit.Exit<Out, E>) => void

  constructor(item: In, answer: (exit: Exit.Exit<Out, E>) => void) {
    this.item = item
    this.answer = answer
  }

  cancel(): void {
    this.withdrawn = true
  }

  tell(exit: Exit.Exit<Out, E>): void {
    if (!this.withdrawn) this.answer(exit)
  }
}

/** A batch of so many items is large. */
const LARGE = 32

/** A call that fails after so long has waited for a store that is away. */
const SLOW_NANOS = 1_000_000_000n

/** What need not be measured. */
const small = () => 0

/** How many of the first items go together: at most so many, and at least one. */
const fitting = <A>(
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

/** Makes a batcher whose calls run in fibers of the scope, apart from any caller's context. */
export const make = Effect.fnUntraced(function* <In, Out, E>(
  options: Options<In, Out, E>
): Effect.fn.Return<Batcher<In, Out, E>, never, Scope.Scope> {
  const { isPermanent, key, maxBatch, maxSize, run, sizeOf = small } = options
  const sizeOfEntry = ({ item }: Entry<In, Out, E>) => sizeOf(item)
  const clock = yield* Clock.Clock
  let pending: Array<Entry<In, Out, E>> = []
  /** Items so far, of which the last ones are pending. */
  let asked = 0
  let closed = false
  let underway = 0
  /** The last answer did not come in the turn of its call. */
  let waited = false
  /** What is pending was asked for at once, or left over by the last batch: it is not divided any more. */
  let whole = false
  const idle: Array<(wake: Effect.Effect<void>) => void> = []

  const push = (item: In, answer: (exit: Exit.Exit<Out, E>) => void): Cancelable => {
    const entry = new Entry(item, answer)
    if (closed) {
      entry.tell(Exit.interrupt())
      return entry
    }
    asked++
    pending.push(entry)
    if (idle.length > 0 && (pending.length === 1 || pending.length > maxBatch)) idle.pop()!(Effect.void)
    return entry
  }

  const take = (): Array<Entry<In, Out, E>> => {
    const large = pending.length >= LARGE && pending.length <= maxBatch
    const halve = options.splitWhenIdle === true && waited && large && !whole && underway === 0
    const most = halve ? pending.length >> 1 : Math.min(maxBatch, pending.length)
    const count = sizeOf === small ? most : fitting(pending, most, maxSize, sizeOfEntry)
    const taken = pending.length === count ? pending : pending.slice(0, count)
    pending = taken === pending ? [] : pending.slice(count)
    whole = pending.length > 0
    if (whole && idle.length > 0) idle.pop()!(Effect.void)
    return taken.filter((entry) => !entry.withdrawn)
  }

  /** Those among the first items that still wait fail, too. */
  const failFirst = (items: number, exit: Exit.Exit<never, E>): void => {
    const count = Math.max(0, items - (asked - pending.length))
    const waiting = pending.slice(0, count)
    pending = pending.slice(count)
    for (const entry of waiting) entry.tell(exit)
  }

  // A batch that failed through the fault of an item is tried again in halves, so that only that item fails.
  const send = (
    entries: ReadonlyArray<Entry<In, Out, E>>,
    onFailed: (exit: Exit.Exit<never, E>) => void
  ): Effect.Effect<void> =>
    Arr.isReadonlyArrayNonEmpty(entries)
      ? Effect.flatMap(
          Effect.exit(Effect.suspend(() => run(Arr.map(entries, (entry) => entry.item)))),
          (exit) => {
            if (Exit.isSuccess(exit)) {
              for (let i = 0; i < entries.length; i++) entries[i]!.tell(Exit.succeed(exit.value[i]!))
              return Effect.void
            }
            const failure = Cause.findError(exit.cause)
            const isTheirs = failure._tag === "Success" && isPermanent(failure.success)
            if (entries.length > 1 && isTheirs) {
              const half = entries.length >> 1
              return Effect.andThen(
                send(entries.slice(0, half), onFailed),
                send(entries.slice(half), onFailed)
              )
            }
            const failed = Exit.failCause(exit.cause)
            for (const entry of entries) entry.tell(failed)
            if (!isTheirs) onFailed(failed)
            return Effect.void
          }
        )
      : Effect.void

  const pump = Effect.callback<void>((resume) => {
    if (pending.length > 0) return resume(Effect.void)
    idle.push(resume)
    return Effect.sync(() => idle.splice(idle.indexOf(resume), 1))
  }).pipe(
    // the rest of this turn may ask for more
    Effect.andThen(Effect.yieldNow),
    Effect.andThen(
      Effect.uninterruptible(
        Effect.suspend(() => {
          const taken = take()
          const before = asked
          const sentAt = clock.monotonicTimeNanosUnsafe()
          // who has waited for as long as a call to a store that is away need not wait for another
          const onFailed = (exit: Exit.Exit<never, E>) => {
            if (clock.monotonicTimeNanosUnsafe() - sentAt >= SLOW_NANOS) failFirst(before, exit)
          }
          underway++
          return completedSync(send(taken, onFailed), (atOnce) => {
            underway--
            waited = !atOnce
          })
        })
      )
    ),
    Effect.forever
  )

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      closed = true
      const waiting = pending
      pending = []
      for (const entry of waiting) entry.tell(Exit.interrupt())
    })
  )
  for (let i = 0; i < options.concurrency; i++) yield* Effect.forkScoped(pump)

  const ask =
    (item: In): Request<Out, E> =>
    (answer) =>
      push(item, answer)
  const coalesced: Batcher<In, Out, E> = {
    request: ask,
    isUnbatched: () => false,
    one: (item) => toEffect(ask(item)),
    many: (items) =>
      Effect.callback((resume) => {
        if (items.length === 0) return resume(Effect.succeed([]))
        const answers: Array<Exit.Exit<Out, E>> = Array.from({ length: items.length })
        let missing = items.length
        whole = true
        const asked = items.map((item, i) =>
          push(item, (exit) => {
            answers[i] = exit
            if (--missing === 0) resume(Effect.succeed(answers))
          })
        )
        return Effect.sync(() => {
          for (const one of asked) one.cancel()
        })
      })
  }
  if (key === undefined) return coalesced

  const isAlone = (context: Context.Context<never>) => key(context) !== undefined
  const partsOf = (items: ReadonlyArray<In>): ReadonlyArray<Arr.NonEmptyReadonlyArray<In>> => {
    const parts: Array<Arr.NonEmptyReadonlyArray<In>> = []
    let rest = items
    while (Arr.isReadonlyArrayNonEmpty(rest)) {
      const [part, more] = Arr.splitAtNonEmpty(
        rest,
        fitting(rest, Math.min(maxBatch, rest.length), maxSize, sizeOf)
      )
      parts.push(part)
      rest = more
    }
    return parts
  }
  return {
    request: ask,
    isUnbatched: isAlone,
    one: (item) =>
      Effect.withFiber((fiber) =>
        isAlone(fiber.context) ? Effect.map(run([item]), (answers) => answers[0]!) : coalesced.one(item)
      ),
    many: (items) =>
      Effect.withFiber((fiber) => {
        if (!isAlone(fiber.context)) return coalesced.many(items)
        return Effect.map(
          Effect.forEach(partsOf(items), (batch) =>
            Effect.map(Effect.exit(run(batch)), (exit) =>
              Arr.makeBy(batch.length, (i) => Exit.map(exit, (answers) => answers[i]!))
            )
          ),
          Arr.flatten
        )
      })
  }
})
