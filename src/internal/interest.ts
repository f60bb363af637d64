/**
 * What the fibers of this process wait for: one registration a task id, however many wait for it.
 *
 * Hints, a resync after a gap, and a shared sweep all lead to the same thing: the ids concerned are read again, in
 * batches, and what was read is given to whoever listens. So calls do not grow with the number of waiters, and a
 * lost hint costs one sweep interval at most.
 */
import { Array as Arr, Cause, Duration, Effect, Latch, Option, type Scope, Stream } from "effect"
import type { Batch, TaskRecord } from "../BackendDriver.ts"
import { backoff } from "./backoff.ts"

/** Told of every read of an id that it listens to. */
export interface Listener<in E> {
  readonly onRecord: (id: string, record: TaskRecord | undefined) => void
  /** A read failed. It is tried again. */
  readonly onError: (error: E) => void
}

/** The registry of a process. */
export interface Interest<out E> {
  /** Listens until the function that it answers is called. The ids are read at once. */
  readonly listen: (ids: Iterable<string>, listener: Listener<E>) => () => void
  /** Hears of every hinted id (`undefined`: of all) until the function that it answers is called. */
  readonly hear: (hear: (ids: ReadonlyArray<string> | undefined) => void) => () => void
}

/** What the registry needs of a driver. */
export interface Options<in out E> {
  readonly watch: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<TaskRecord | undefined>, E>
  readonly read: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<TaskRecord | undefined>, E>
  readonly unwatch: (ids: Batch<string>) => Effect.Effect<void, E>
  readonly hints: Stream.Stream<ReadonlyArray<string> | "resync", E>
  /** Whether an error is the fault of an id, so that a batch without it may do better. */
  readonly isPermanent: (error: E) => boolean
  /** All that is awaited is read again this often. */
  readonly sweepInterval: Duration.Duration
  readonly maxBatch: number
  /** Counts those who listen. */
  readonly onListeners: (change: number) => void
}

/** How soon hints that broke off are listened to again. */
const relisten = Duration.millis(200)

interface Entry<E> {
  readonly listeners: Set<Listener<E>>
  /** The store was asked to register it: from then on it may give hints, also before it answers. */
  asked: boolean
  /** The store knows of it. */
  watched: boolean
}

/** Makes the registry; it asks nothing of the store before somebody listens or hears. */
export const make = Effect.fnUntraced(function* <E>(
  options: Options<E>
): Effect.fn.Return<Interest<E>, never, Scope.Scope> {
  const entries = new Map<string, Entry<E>>()
  const hearers = new Set<(ids: ReadonlyArray<string> | undefined) => void>()
  /** Ids to register and read; to read; to take back. */
  const fresh = new Set<string>()
  const dirty = new Set<string>()
  const left = new Set<string>()
  const first = Latch.makeUnsafe(false)
  const work = Latch.makeUnsafe(false)

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
    for (const id of ids) entries.get(id)?.listeners.forEach((listener) => listener.onError(error.value))
  }

  const answered = (
    from: Set<string>,
    ids: Batch<string>,
    records: ReadonlyArray<TaskRecord | undefined>
  ): void => {
    for (let i = 0; i < ids.length; i++) {
      const entry = entries.get(ids[i]!)
      if (entry === undefined) {
        // everybody left while the store was registering it
        if (from === fresh) left.add(ids[i]!)
        continue
      }
      if (from === fresh) entry.watched = true
      for (const listener of entry.listeners) listener.onRecord(ids[i]!, records[i])
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

  const step: Effect.Effect<void, E> = Effect.suspend(() => {
    const toWatch = takeFrom(fresh)
    if (Arr.isArrayNonEmpty(toWatch)) {
      for (const id of toWatch) entries.get(id)!.asked = true
      return read(fresh, toWatch, options.watch)
    }
    const toRead = takeFrom(dirty)
    if (Arr.isArrayNonEmpty(toRead)) return read(dirty, toRead, options.read)
    const toLeave = takeFrom(left)
    if (Arr.isArrayNonEmpty(toLeave)) {
      return Effect.onError(options.unwatch(toLeave), () =>
        Effect.sync(() => {
          for (const id of toLeave) if (!entries.has(id)) left.add(id)
        })
      )
    }
    work.closeUnsafe()
    return Effect.andThen(work.await, Effect.yieldNow)
  })

  const touch = (ids: Iterable<string>): void => {
    for (const id of ids) if (entries.get(id)?.asked === true) dirty.add(id)
    work.openUnsafe()
  }
  const touchAll = (): void => touch(entries.keys())

  const follow = Stream.runForEach(options.hints, (hint) =>
    Effect.sync(() => {
      if (hint === "resync") touchAll()
      else touch(hint)
      for (const hear of hearers) hear(hint === "resync" ? undefined : hint)
    })
  ).pipe(
    // a stream of hints that broke off has a gap
    Effect.ensuring(
      Effect.sync(() => {
        touchAll()
        for (const hear of hearers) hear(undefined)
      })
    ),
    Effect.catchCause((cause) =>
      Effect.logWarning("The hints of the backend broke off; listening again", cause)
    ),
    Effect.andThen(Effect.sleep(relisten)),
    Effect.forever
  )
  const sweep = Effect.andThen(Effect.sleep(options.sweepInterval), Effect.sync(touchAll)).pipe(
    Effect.forever
  )
  const pump = Effect.forever(Effect.retry(step, backoff))

  yield* Effect.all([follow, sweep, pump], { concurrency: "unbounded", discard: true }).pipe(
    // a latch runs those who wait for it in its opener's step, and whoever listens must have its answer first
    (running) => Effect.andThen(Effect.andThen(first.await, Effect.yieldNow), running),
    Effect.forkScoped
  )

  return {
    listen: (ids, listener) => {
      const mine = [...new Set(ids)]
      for (const id of mine) {
        let entry = entries.get(id)
        if (entry === undefined) {
          // an id that is about to be taken back is still registered
          const known = left.delete(id)
          entry = { listeners: new Set(), asked: known, watched: known }
          entries.set(id, entry)
        }
        entry.listeners.add(listener)
        if (entry.watched) dirty.add(id)
        else fresh.add(id)
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
          if (entry === undefined || !entry.listeners.delete(listener) || entry.listeners.size > 0) continue
          entries.delete(id)
          fresh.delete(id)
          dirty.delete(id)
          if (entry.watched) {
            left.add(id)
            work.openUnsafe()
          }
        }
      }
    },
    hear: (hear) => {
      hearers.add(hear)
      first.openUnsafe()
      return () => void hearers.delete(hear)
    }
  }
})
