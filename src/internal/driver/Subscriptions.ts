/**
 * What the fibers of this process wait for: one registration a task id, however many wait for it.
 *
 * A hint leads to a read of its ids, in batches, and what was read is given to whoever listens. After a gap in the
 * hints everything is registered again, which reads it too. For the hint that is lost all the same there is a sweep:
 * a single batch at each interval, those first that were read longest ago. So while nothing happens, the calls are
 * as many for all waiters as for one, and a lost hint costs `interval * ceil(ids / maxBatch)` at most.
 */
import { Array as Arr, Cause, Duration, Effect, Latch, Option, Result, type Scope, Stream } from "effect"
import type { TaskRecord } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { isTerminal } from "../../TaskState.ts"
import { backoff } from "../backoff.ts"
import { ChurnMap } from "../concurrency/ChurnMap.ts"

/** What has to be hinted of a task: every `change`, or its `end` alone. */
export type Until = "change" | "end"

/** Told of every read of an id that it listens to. */
export interface Subscriber<in E> {
  /** What it has to be told of: every change, or the end alone. */
  readonly waitsFor: Until
  readonly onRecord: (id: string, record: TaskRecord | undefined) => void
  /** A read failed. It is tried again. */
  readonly onError: (error: E) => void
}

/** The registry of a process. */
export interface Subscriptions<out E> {
  /** Listens until the function that it answers is called. The ids are read at once. */
  readonly subscribe: (ids: ReadonlyArray<string>, listener: Subscriber<E>) => () => void
  /** Hears of every hinted id (`undefined`: of all) until the function that it answers is called. */
  readonly onHint: (hear: (ids: ReadonlyArray<string> | undefined) => void) => () => void
}

/** What the registry needs of a driver. */
export interface Options<in out E> {
  readonly watch: (
    ids: Batch<string>,
    until: Until
  ) => Effect.Effect<ReadonlyArray<TaskRecord | undefined>, E>
  readonly read: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<TaskRecord | undefined>, E>
  readonly unwatch: (ids: Batch<string>) => Effect.Effect<void, E>
  readonly hints: Stream.Stream<ReadonlyArray<string> | "resync", E>
  /** Whether an error is the fault of an id, so that a batch without it may do better. */
  readonly isPermanent: (error: E) => boolean
  /** How often a batch of what is awaited is read again. */
  readonly sweepInterval: Duration.Duration
  /** Ids that one call carries at most. */
  readonly maxBatch: number
  /** Counts those who listen. */
  readonly onListeners: (change: number) => void
}

/** How soon hints that broke off are listened to again. */
const relisten = Duration.millis(200)

/** An id that is awaited, and who listens to it: nearly always one, for whom a set would cost more than the rest. */
class Entry<E> {
  /** The store may know of it, and has to be told when nobody listens any more. */
  registered: boolean
  /** What whoever listens needs. */
  until: Until = "end"
  /** The last read showed the end, after which nothing changes. */
  ended = false
  private one: Subscriber<E> | undefined
  private others: Set<Subscriber<E>> | undefined

  constructor(registered: boolean) {
    this.registered = registered
  }

  add(listener: Subscriber<E>): void {
    if (listener.waitsFor === "change") this.until = "change"
    if (this.one === undefined) this.one = listener
    else (this.others ??= new Set()).add(listener)
  }

  /** Whether nobody is left. */
  remove(listener: Subscriber<E>): boolean {
    if (this.one === listener) this.one = undefined
    else this.others?.delete(listener)
    return this.one === undefined && (this.others === undefined || this.others.size === 0)
  }

  tell(id: string, record: TaskRecord | undefined): void {
    this.ended = record !== undefined && isTerminal(record.state)
    this.one?.onRecord(id, record)
    this.others?.forEach((listener) => listener.onRecord(id, record))
  }

  fail(error: E): void {
    this.one?.onError(error)
    this.others?.forEach((listener) => listener.onError(error))
  }
}

/** Makes the registry; it asks nothing of the store before somebody listens or hears. */
export const make = Effect.fnUntraced(function* <E>(
  options: Options<E>
): Effect.fn.Return<Subscriptions<E>, never, Scope.Scope> {
  /** Those first that were read longest ago. */
  const entries = new ChurnMap<string, Entry<E>>()
  const hearers = new Set<(ids: ReadonlyArray<string> | undefined) => void>()
  /** Ids to register, which reads them too; to read; to take back. */
  const fresh = new Set<string>()
  const dirty = new Set<string>()
  const left = new Set<string>()
  const first = Latch.makeUnsafe(false)
  const work = Latch.makeUnsafe(false)

  const register = (id: string): void => {
    dirty.delete(id)
    fresh.add(id)
  }
  const readAgain = (id: string): void => {
    if (entries.has(id) && !fresh.has(id)) dirty.add(id)
  }

  const takeFrom = (ids: Set<string>): Array<string> => {
    const taken: Array<string> = []
    for (const id of ids) {
      if (taken.length === options.maxBatch) break
      taken.push(id)
    }
    for (const id of taken) ids.delete(id)
    return taken
  }

  const failed = (from: Set<string>, ids: Batch<string>, cause: Cause.Cause<E>): void => {
    for (const id of ids) {
      if (entries.has(id)) from.add(id)
      // everybody left, and the store may know of it all the same
      else if (from === fresh) left.add(id)
    }
    const error = Cause.findErrorOption(cause)
    if (Option.isNone(error)) return
    for (const id of ids) entries.get(id)?.fail(error.value)
  }

  const answered = (
    from: Set<string>,
    ids: Batch<string>,
    records: ReadonlyArray<TaskRecord | undefined>
  ): void => {
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!
      const entry = entries.get(id)
      if (entry === undefined) {
        // everybody left while the store was registering it
        if (from === fresh) left.add(id)
        continue
      }
      if (from === fresh) entry.registered = true
      entry.tell(id, records[i])
      if (entry.ended || entries.get(id) !== entry) continue
      entries.delete(id)
      entries.set(id, entry)
    }
  }

  // what failed through the fault of an id is tried again in halves, so that only its own listeners hear of it
  const read = (
    from: Set<string>,
    ids: Batch<string>,
    call: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<TaskRecord | undefined>, E>
  ): Effect.Effect<void, E> =>
    Effect.matchCauseEffect(call(ids), {
      onFailure: (cause) => {
        const error = Cause.findErrorOption(cause)
        const half = ids.length >> 1
        const [head, tail] = [ids.slice(0, half), ids.slice(half)]
        const mayDoBetter = Option.isSome(error) && options.isPermanent(error.value)
        if (mayDoBetter && Arr.isArrayNonEmpty(head) && Arr.isArrayNonEmpty(tail)) {
          return Effect.andThen(Effect.exit(read(from, head, call)), read(from, tail, call))
        }
        failed(from, ids, cause)
        return Effect.failCause(cause)
      },
      onSuccess: (records) => {
        answered(from, ids, records)
        return Effect.void
      }
    })

  const registerFor = (until: Until, ids: ReadonlyArray<string>): Effect.Effect<void, E> | undefined =>
    Arr.isReadonlyArrayNonEmpty(ids) ? read(fresh, ids, (some) => options.watch(some, until)) : undefined

  /** What a call may be for. */
  const duties: ReadonlyArray<() => Effect.Effect<void, E> | undefined> = [
    () => {
      const [forChanges, forEnds] = Arr.partition(takeFrom(fresh), (id) =>
        entries.get(id)?.until === "change" ? Result.succeed(id) : Result.fail(id)
      )
      const ends = registerFor("end", forEnds)
      const changes = registerFor("change", forChanges)
      return ends === undefined || changes === undefined
        ? (ends ?? changes)
        : Effect.andThen(Effect.exit(ends), changes)
    },
    () => {
      const ids = takeFrom(dirty)
      return Arr.isArrayNonEmpty(ids) ? read(dirty, ids, options.read) : undefined
    },
    () => {
      // nobody waits for it: it waits until there is nothing else to do, or enough of it
      if (left.size < options.maxBatch && fresh.size + dirty.size > 0) return undefined
      const ids = takeFrom(left)
      if (!Arr.isArrayNonEmpty(ids)) return undefined
      return Effect.onError(options.unwatch(ids), () =>
        Effect.sync(() => {
          for (const id of ids) if (!entries.has(id)) left.add(id)
        })
      )
    }
  ]
  let next = 0

  // by turns, so that none holds up the others
  const step: Effect.Effect<void, E> = Effect.suspend(() => {
    for (let i = 0; i < duties.length; i++) {
      const call = duties[next]!()
      next = (next + 1) % duties.length
      if (call !== undefined) return call
    }
    work.closeUnsafe()
    return Effect.andThen(work.await, Effect.yieldNow)
  })

  const touch = (ids: ReadonlyArray<string>): void => {
    ids.forEach(readAgain)
    work.openUnsafe()
  }
  /** The store may have missed or forgotten what it was asked. */
  const registerAll = (): void => {
    for (const [id, entry] of entries) if (!entry.ended) register(id)
    work.openUnsafe()
  }
  const sweepSome = (): void => {
    let count = 0
    for (const [id, entry] of entries) {
      if (count === options.maxBatch) break
      if (entry.ended || !entry.registered) continue
      readAgain(id)
      count++
    }
    if (count > 0) work.openUnsafe()
  }

  const follow = Stream.runForEach(options.hints, (hint) =>
    Effect.sync(() => {
      if (hint === "resync") registerAll()
      else touch(hint)
      for (const hear of hearers) hear(hint === "resync" ? undefined : hint)
    })
  ).pipe(
    // a stream of hints that broke off has a gap
    Effect.ensuring(
      Effect.sync(() => {
        registerAll()
        for (const hear of hearers) hear(undefined)
      })
    ),
    Effect.catchCause((cause) =>
      Effect.logWarning("The hints of the backend broke off; listening again", cause)
    ),
    Effect.andThen(Effect.sleep(relisten)),
    Effect.forever
  )
  const sweep = Effect.andThen(Effect.sleep(options.sweepInterval), Effect.sync(sweepSome)).pipe(
    Effect.forever
  )
  const pump = Effect.forever(Effect.retry(step, backoff))

  yield* Effect.all([follow, sweep, pump], { concurrency: "unbounded", discard: true }).pipe(
    // a latch runs those who wait for it in its opener's step, and whoever listens must have its answer first
    (running) => Effect.andThen(Effect.andThen(first.await, Effect.yieldNow), running),
    Effect.forkScoped
  )

  return {
    subscribe: (ids, listener) => {
      const mine = ids.length === 1 ? ids : [...new Set(ids)]
      for (const id of mine) {
        let entry = entries.get(id)
        if (entry === undefined) {
          // an id that is about to be taken back is still registered, unless there was a gap
          entry = new Entry(left.delete(id))
          entries.set(id, entry)
          register(id)
        } else if (entry.registered && entry.until === "end" && listener.waitsFor === "change") register(id)
        else if (entry.registered) readAgain(id)
        else register(id)
        entry.add(listener)
      }
      options.onListeners(1)
      first.openUnsafe()
      work.openUnsafe()
      let listening = true
      return () => {
        if (!listening) return
        listening = false
        options.onListeners(-1)
        for (const id of mine) {
          const entry = entries.get(id)
          if (entry === undefined || !entry.remove(listener)) continue
          entries.delete(id)
          fresh.delete(id)
          dirty.delete(id)
          if (entry.registered) left.add(id)
        }
        if (left.size > 0) work.openUnsafe()
      }
    },
    onHint: (hear) => {
      hearers.add(hear)
      first.openUnsafe()
      return () => void hearers.delete(hear)
    }
  }
})
