/**
 * Coalesces what concurrent fibers ask of a store into few calls.
 *
 * What is asked for in one turn of the scheduler goes out together, at most `maxBatch` items a call and
 * `concurrency` calls at a time; what is asked for meanwhile makes the next batch. Every caller waits for its own
 * answer, so a producer that is faster than its store is held back.
 */
import { Array as Arr, Cause, type Context, Effect, Exit, type Scope } from "effect"
import type { Batch } from "../BackendDriver.ts"

/** A batched operation. */
export interface Batcher<in In, out Out, out E> {
  /** One item. Interrupting the caller withdraws it, if it is not on its way yet. */
  readonly one: (item: In) => Effect.Effect<Out, E>
  /** Many items; each has its own answer, in order. */
  readonly many: (items: ReadonlyArray<In>) => Effect.Effect<Array<Exit.Exit<Out, E>>>
}

/** How a batcher calls its store. */
export interface Options<in out In, in out Out, in out E> {
  readonly run: (batch: Batch<In>) => Effect.Effect<ReadonlyArray<Out>, E>
  /** Whether an error is the fault of an item, so that a batch without it may do better. */
  readonly isPermanent: (error: E) => boolean
  /** Items that one call carries at most. */
  readonly maxBatch: number
  /** Calls on their way at most. */
  readonly concurrency: number
  /** A caller with a key of its own is not coalesced: its call runs in its own context, that is, its transaction. */
  readonly key?: ((context: Context.Context<never>) => unknown) | undefined
}

interface Entry<In, Out, E> {
  readonly item: In
  readonly answer: (exit: Exit.Exit<Out, E>) => void
  withdrawn: boolean
}

/** Makes a batcher whose calls run in fibers of the scope, apart from any caller's context. */
export const make = Effect.fnUntraced(function* <In, Out, E>(
  options: Options<In, Out, E>
): Effect.fn.Return<Batcher<In, Out, E>, never, Scope.Scope> {
  const { isPermanent, key, maxBatch, run } = options
  let pending: Array<Entry<In, Out, E>> = []
  let closed = false
  const idle: Array<(wake: Effect.Effect<void>) => void> = []

  const push = (entry: Entry<In, Out, E>): void => {
    if (closed) return entry.answer(Exit.interrupt())
    pending.push(entry)
    if (idle.length > 0 && (pending.length === 1 || pending.length > maxBatch)) idle.pop()!(Effect.void)
  }

  const take = (): Array<Entry<In, Out, E>> => {
    const taken = pending.length <= maxBatch ? pending : pending.slice(0, maxBatch)
    pending = taken === pending ? [] : pending.slice(maxBatch)
    return taken.filter((entry) => !entry.withdrawn)
  }

  // A batch that failed through the fault of an item is tried again in halves, so that only that item fails.
  const send = (entries: ReadonlyArray<Entry<In, Out, E>>): Effect.Effect<void> =>
    Arr.isReadonlyArrayNonEmpty(entries)
      ? Effect.flatMap(
          Effect.exit(Effect.suspend(() => run(Arr.map(entries, (entry) => entry.item)))),
          (exit) => {
            if (Exit.isSuccess(exit)) {
              for (let i = 0; i < entries.length; i++) entries[i]!.answer(Exit.succeed(exit.value[i]!))
              return Effect.void
            }
            const failure = Cause.findError(exit.cause)
            if (entries.length > 1 && failure._tag === "Success" && isPermanent(failure.success)) {
              const half = entries.length >> 1
              return Effect.andThen(send(entries.slice(0, half)), send(entries.slice(half)))
            }
            for (const entry of entries) entry.answer(exit as Exit.Exit<never, E>)
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
    Effect.andThen(Effect.uninterruptible(Effect.suspend(() => send(take())))),
    Effect.forever
  )

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      closed = true
      const waiting = pending
      pending = []
      for (const entry of waiting) entry.answer(Exit.interrupt())
    })
  )
  for (let i = 0; i < options.concurrency; i++) yield* Effect.forkScoped(pump)

  const coalesced: Batcher<In, Out, E> = {
    one: (item) =>
      Effect.callback((resume) => {
        const entry: Entry<In, Out, E> = { item, answer: resume, withdrawn: false }
        push(entry)
        return Effect.sync(() => {
          entry.withdrawn = true
        })
      }),
    many: (items) =>
      Effect.callback((resume) => {
        if (items.length === 0) return resume(Effect.succeed([]))
        const answers: Array<Exit.Exit<Out, E>> = Array.from({ length: items.length })
        let missing = items.length
        const entries = items.map((item, i): Entry<In, Out, E> => ({
          item,
          withdrawn: false,
          answer: (exit) => {
            answers[i] = exit
            if (--missing === 0) resume(Effect.succeed(answers))
          }
        }))
        entries.forEach(push)
        return Effect.sync(() => {
          for (const entry of entries) entry.withdrawn = true
        })
      })
  }
  if (key === undefined) return coalesced

  const alone = (items: Batch<In>) => run(items)
  const inTransaction = Effect.map(Effect.context<never>(), (context) => key(context) !== undefined)
  return {
    one: (item) =>
      Effect.flatMap(inTransaction, (inside) =>
        inside ? Effect.map(alone([item]), (answers) => answers[0]!) : coalesced.one(item)
      ),
    many: (items) =>
      Effect.flatMap(inTransaction, (inside) => {
        if (!inside) return coalesced.many(items)
        return Effect.map(
          Effect.forEach(Arr.chunksOf(items, maxBatch), (batch) =>
            Effect.map(Effect.exit(alone(batch)), (exit) =>
              Arr.makeBy(batch.length, (i) => Exit.map(exit, (answers) => answers[i]!))
            )
          ),
          Arr.flatten
        )
      })
  }
})
