/**
 * The subscriptions of this process: one per task id, for any number of waiters.
 *
 * A hint leads to a read of its ids, in batches, and each subscriber of an id receives what was read; a hint that brings the
 * last record of a task saves that read. After a gap in the hints every id is subscribed again, which reads it too; an id
 * that is not to be read then, by its next read. Where hints may be lost, a sweep reads one batch an interval, those ids
 * first whose last read is the oldest. So while nothing happens, all waiters together cost as many calls as one, and a lost
 * hint delays its waiter by at most `interval * ceil(ids / maxBatch)`.
 *
 * A store may subscribe to a task in the step that creates it. While this process waits for its tasks, it asks for that, and
 * the wait for such a task begins without a call.
 */
import { Array as Arr, Cause, Duration, Effect, Latch, Option, Result, type Scope, Stream } from "effect"
import type { Hint, TaskRecord } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { isTerminal } from "../../TaskState.ts"
import { backoff } from "../backoff.ts"
import { BatchLimit } from "../concurrency/BatchLimit.ts"
import { ChurnMap } from "../concurrency/ChurnMap.ts"
import { untraced } from "../tracing.ts"
import type { BackgroundTask, Outages } from "./Outages.ts"

/** Which changes of a task are hinted: every `change`, or its `end` alone. */
export type Until = "change" | "end"

/** Receives every read of the ids that it subscribed to. */
export interface Subscriber<in E> {
  readonly waitsFor: Until
  /**
   * Whether to read an id now. A read that is refused is dropped, until the subscriber requests it by its subscription;
   * so a subscriber decides how many records it is given at a time. It may be given one that it refused, if another
   * subscriber of the id accepts it. Default: always.
   */
  readonly accepts?: (id: string) => boolean
  readonly onRecord: (id: string, record: TaskRecord | undefined) => void
  /** Called when a read failed, which is tried again, or when the store was closed, after which nothing is read. */
  readonly onError: (error: E, id: string) => void
}

/** What a subscriber has of the ids that it subscribed to. */
export interface Subscription {
  /** Reads ids. */
  read(ids: Iterable<string>): void
  /** Ends the subscription of one id. */
  drop(id: string): void
  /** Ends the subscription of all ids. */
  end(): void
}

/** The subscriptions of a process. */
export interface Subscriptions<out E> {
  /** Subscribes, which reads the ids at once. Calls back only after it has returned. */
  readonly subscribe: (ids: ReadonlyArray<string>, subscriber: Subscriber<E>) => Subscription
  /** Passes every hinted id on; `undefined` stands for all ids. Returns what ends it. */
  readonly onHint: (onHint: HintListener) => () => void
  /** Whether the store is to subscribe to the next task that this process creates, since it is likely to be awaited. */
  readonly expectsWait: () => boolean
  /**
   * Takes note of a task to whose end the store subscribes in the step that creates it: its record as it is created. Called
   * before that step, so that no hint comes earlier.
   */
  readonly onCreate: (record: TaskRecord) => void
}

/** Called with hinted ids, or with `undefined` where any task may have changed. */
export type HintListener = (ids: ReadonlyArray<string> | undefined) => void

/** The records of the first ids of a call, at least of one. The rest is read again. */
type Records = ReadonlyArray<TaskRecord | undefined>

/** What the subscriptions need of a driver. */
export interface Options<in out E> {
  readonly subscribe: (ids: Batch<string>, until: Until) => Effect.Effect<Records, E>
  readonly read: (ids: Batch<string>) => Effect.Effect<Records, E>
  readonly unsubscribe: (ids: Batch<string>) => Effect.Effect<void, E>
  readonly hints: Stream.Stream<ReadonlyArray<Hint> | "resync", E>
  readonly outages: Outages
  /** Whether an error is the fault of an id, so that a batch without that id may succeed. */
  readonly isPermanent: (error: E) => boolean
  /** Makes the error of subscribers that wait when the scope closes, or that come later. */
  readonly toClosedError: () => E
  /** Whether the store subscribes to a task in the step that creates it, where it is asked to. */
  readonly subscribesCreated: boolean
  /** `undefined`: no hint is lost, and nothing is swept. */
  readonly sweepInterval: Duration.Duration | undefined
  /** Ids per call, at most. */
  readonly maxBatch: number
  /** Called with the change in the number of subscribers. */
  readonly onSubscribers: (change: number) => void
}

/** How long to wait before a broken stream of hints is run again. */
const RESTART_HINTS_AFTER = Duration.millis(200)

/** Tasks that were created with a subscription and not waited for yet, at most. */
const MAX_CREATED = 10_000
/** How many tasks may be created with a subscription for each wait, and how many at most before the next wait. */
const CREATED_PER_WAIT = 2
const MAX_EXPECTED = 1024

/** The subscribers of an id: nearly always one, for which a set would cost more than everything else. */
class Entry<E> {
  /** The store may have the subscription, so it has to be removed. */
  subscribed: boolean
  /** The next read subscribes: the last subscribe was refused, or left out because the task had ended. */
  mustSubscribe = false
  /** What the subscribers need. */
  until: Until = "end"
  /** The last read was terminal: nothing changes any more. */
  ended = false
  /** Whether it was read, or its record is known without a read. */
  isRead = false
  private last: TaskRecord | undefined
  private first: Subscriber<E> | undefined
  private others: Set<Subscriber<E>> | undefined

  constructor(subscribed: boolean) {
    this.subscribed = subscribed
  }

  add(subscriber: Subscriber<E>): void {
    if (subscriber.waitsFor === "change") this.until = "change"
    if (this.first === undefined) this.first = subscriber
    else (this.others ??= new Set()).add(subscriber)
  }

  /** Removes a subscriber and returns whether none is left. */
  remove(subscriber: Subscriber<E>): boolean {
    if (this.first === subscriber) this.first = undefined
    else this.others?.delete(subscriber)
    return this.first === undefined && (this.others === undefined || this.others.size === 0)
  }

  /** Whether one of the subscribers accepts a read. Each of them is asked. */
  accepts(id: string): boolean {
    let accepted = this.first !== undefined && this.first.accepts?.(id) !== false
    this.others?.forEach((subscriber) => {
      if (subscriber.accepts?.(id) !== false) accepted = true
    })
    return accepted
  }

  /** Whether a record is of the enqueue and the generation that was read last. */
  isOfSameGeneration({ generation, incarnation }: TaskRecord): boolean {
    return this.last?.incarnation === incarnation && this.last.generation === generation
  }

  notify(id: string, record: TaskRecord | undefined): void {
    this.isRead = true
    this.last = record
    this.ended = record !== undefined && isTerminal(record.state)
    this.first?.onRecord(id, record)
    this.others?.forEach((subscriber) => subscriber.onRecord(id, record))
  }

  fail(id: string, error: E): void {
    this.first?.onError(error, id)
    this.others?.forEach((subscriber) => subscriber.onError(error, id))
  }
}

class ActiveSubscription<E> implements Subscription {
  private readonly subscriptions: ProcessSubscriptions<E>
  private readonly ids: ReadonlyArray<string>
  private readonly subscriber: Subscriber<E>
  private active = true

  constructor(subscriptions: ProcessSubscriptions<E>, ids: ReadonlyArray<string>, subscriber: Subscriber<E>) {
    this.subscriptions = subscriptions
    this.ids = ids
    this.subscriber = subscriber
  }

  read(ids: Iterable<string>): void {
    this.subscriptions.read(ids)
  }

  drop(id: string): void {
    this.subscriptions.removeSubscriber(id, this.subscriber)
  }

  end(): void {
    if (!this.active) return
    this.active = false
    this.subscriptions.unsubscribe(this.ids, this.subscriber)
  }
}

class ProcessSubscriptions<E> implements Subscriptions<E> {
  private readonly options: Options<E>
  private readonly hintsTask: BackgroundTask
  /** In the order of their last reads, the oldest first. */
  private readonly entries = new ChurnMap<string, Entry<E>>()
  private readonly hintListeners = new Set<HintListener>()
  /** Ids to subscribe, which reads them too. */
  private readonly toSubscribe = new Set<string>()
  private readonly toRead = new Set<string>()
  private readonly toUnsubscribe = new Set<string>()
  /** Tasks that were created with a subscription and not waited for yet, the oldest first. */
  private readonly created = new ChurnMap<string, TaskRecord>()
  /** How many tasks may be created with a subscription before the next wait. */
  private expected = 0
  private readonly started = Latch.makeUnsafe(false)
  private readonly hasWork = Latch.makeUnsafe(false)
  private nextCall = 0
  /** Ids per call at present: fewer than `maxBatch` after calls that failed. */
  private readonly batchLimit: BatchLimit
  private closed = false

  constructor(options: Options<E>) {
    this.options = options
    this.hintsTask = options.outages.background("receive hints of the backend", { mayBeSilent: true })
    this.batchLimit = new BatchLimit(options.maxBatch)
  }

  subscribe(ids: ReadonlyArray<string>, subscriber: Subscriber<E>): Subscription {
    if (this.closed) return this.failLater(ids, subscriber)
    const distinct = ids.length === 1 ? ids : [...new Set(ids)]
    for (const id of distinct) this.addSubscriber(id, subscriber)
    if (this.options.subscribesCreated) {
      this.expected = Math.min(MAX_EXPECTED, this.expected + CREATED_PER_WAIT)
    }
    this.options.onSubscribers(1)
    this.started.openUnsafe()
    this.wakeIfDue()
    return new ActiveSubscription(this, distinct, subscriber)
  }

  expectsWait(): boolean {
    return this.expected > 0
  }

  onCreate(record: TaskRecord): void {
    this.expected--
    if (this.created.size >= MAX_CREATED) {
      const [oldest] = this.created.values()
      if (oldest !== undefined) this.created.delete(oldest.id)
    }
    this.created.set(record.id, record)
  }

  /** Ends the subscription of all ids. */
  unsubscribe(ids: ReadonlyArray<string>, subscriber: Subscriber<E>): void {
    this.options.onSubscribers(-1)
    for (const id of ids) this.removeSubscriber(id, subscriber)
    if (this.toUnsubscribe.size > 0) this.hasWork.openUnsafe()
  }

  onHint(listener: HintListener): () => void {
    this.hintListeners.add(listener)
    this.started.openUnsafe()
    return () => void this.hintListeners.delete(listener)
  }

  /** Fails all subscribers: nothing reads for them any more. */
  readonly close = Effect.sync(() => {
    this.closed = true
    for (const [id, entry] of this.entries) {
      this.entries.delete(id)
      entry.fail(id, this.options.toClosedError())
    }
  })

  private failLater(ids: ReadonlyArray<string>, subscriber: Subscriber<E>): Subscription {
    const waiting = new Set(ids)
    queueMicrotask(() => {
      for (const id of waiting) subscriber.onError(this.options.toClosedError(), id)
    })
    return { read: () => undefined, drop: (id) => void waiting.delete(id), end: () => waiting.clear() }
  }

  private addSubscriber(id: string, subscriber: Subscriber<E>): void {
    let entry = this.entries.get(id)
    if (entry === undefined && subscriber.waitsFor === "end" && this.created.has(id)) {
      entry = this.addCreated(id)
    } else if (entry === undefined) {
      // an id that waits to be unsubscribed is still subscribed, unless there was a gap
      entry = new Entry(this.toUnsubscribe.delete(id))
      this.entries.set(id, entry)
      this.subscribeLater(id)
    } else if (!entry.subscribed || (entry.until === "end" && subscriber.waitsFor === "change")) {
      this.subscribeLater(id)
    } else {
      this.readLater(id)
    }
    entry.add(subscriber)
  }

  /** Adds the entry of a task that was created with a subscription: its end will be hinted, so it need not be read. */
  private addCreated(id: string): Entry<E> {
    const entry = new Entry<E>(true)
    const record = this.created.get(id)
    this.created.delete(id)
    this.toUnsubscribe.delete(id)
    this.entries.set(id, entry)
    queueMicrotask(() => {
      if (!entry.isRead && this.entries.get(id) === entry) entry.notify(id, record)
    })
    return entry
  }

  removeSubscriber(id: string, subscriber: Subscriber<E>): void {
    const entry = this.entries.get(id)
    if (entry === undefined || !entry.remove(subscriber)) return
    this.entries.delete(id)
    this.toSubscribe.delete(id)
    this.toRead.delete(id)
    if (entry.subscribed) this.toUnsubscribe.add(id)
  }

  private subscribeLater(id: string): void {
    this.toRead.delete(id)
    this.toSubscribe.add(id)
  }

  private readLater(id: string): void {
    const entry = this.entries.get(id)
    if (entry === undefined || this.toSubscribe.has(id)) return
    if (entry.mustSubscribe) this.subscribeLater(id)
    else this.toRead.add(id)
  }

  /** Reads ids, or subscribes them where they have to be. */
  read(ids: Iterable<string>): void {
    for (const id of ids) this.readLater(id)
    this.wakeIfDue()
  }

  /** Wakes the calls where there is something to read. */
  private wakeIfDue(): void {
    if (this.toSubscribe.size + this.toRead.size > 0) this.hasWork.openUnsafe()
  }

  /** Takes the ids of the next batch, without those whose subscribers all refuse. */
  private takeFrom(ids: Set<string>): Array<string> {
    const taken: Array<string> = []
    for (const id of ids) {
      if (taken.length === this.batchLimit.current) break
      ids.delete(id)
      const entry = this.entries.get(id)
      const refused = entry !== undefined && !entry.accepts(id)
      if (entry !== undefined && ids === this.toSubscribe) entry.mustSubscribe = refused
      if (refused) this.moveToEnd(id, entry)
      else taken.push(id)
    }
    return taken
  }

  /** Moves an id behind those that the next sweeps read. */
  private moveToEnd(id: string, entry: Entry<E>): void {
    this.entries.delete(id)
    this.entries.set(id, entry)
  }

  /** Reads a batch. One that fails through the fault of an id is tried again in halves, so that only that id fails. */
  private readBatch(
    source: Set<string>,
    ids: Batch<string>,
    call: (ids: Batch<string>) => Effect.Effect<Records, E>
  ): Effect.Effect<void, E> {
    return Effect.matchCauseEffect(call(ids), {
      onFailure: (cause) => {
        const error = Cause.findErrorOption(cause)
        const half = ids.length >> 1
        const [head, tail] = [ids.slice(0, half), ids.slice(half)]
        const isIdsFault = Option.isSome(error) && this.options.isPermanent(error.value)
        if (isIdsFault && Arr.isArrayNonEmpty(head) && Arr.isArrayNonEmpty(tail)) {
          return Effect.andThen(
            Effect.exit(this.readBatch(source, head, call)),
            this.readBatch(source, tail, call)
          )
        }
        this.onBatchFailed(source, ids, error, isIdsFault)
        return Effect.failCause(cause)
      },
      onSuccess: (records) => {
        this.onBatchRead(source, ids, records)
        return Effect.void
      }
    })
  }

  private onBatchRead(source: Set<string>, ids: Batch<string>, records: Records): void {
    const isNew = source === this.toSubscribe
    this.batchLimit.onSuccess()
    if (records.length < ids.length) this.readAgain(source, ids.slice(records.length))
    for (let i = 0; i < Math.min(ids.length, records.length); i++) {
      const id = ids[i]!
      const entry = this.entries.get(id)
      if (entry === undefined) {
        // all subscribers left during the call
        if (isNew) this.toUnsubscribe.add(id)
        continue
      }
      if (isNew) entry.subscribed = true
      entry.notify(id, records[i])
      if (!entry.ended && this.entries.get(id) === entry) this.moveToEnd(id, entry)
    }
  }

  private readAgain(source: Set<string>, ids: ReadonlyArray<string>): void {
    for (const id of ids) {
      const entry = this.entries.get(id)
      // the store may have the subscription all the same
      if (source === this.toSubscribe) {
        if (entry === undefined) this.toUnsubscribe.add(id)
        else entry.subscribed = true
      }
      if (entry !== undefined) source.add(id)
    }
  }

  private onBatchFailed(
    source: Set<string>,
    ids: Batch<string>,
    error: Option.Option<E>,
    isIdsFault: boolean
  ): void {
    const failed = [...ids]
    if (!isIdsFault) {
      // those that a batch of the usual size would have had
      for (const id of source) {
        if (failed.length === this.options.maxBatch) break
        failed.push(id)
      }
      this.batchLimit.onFailure(ids.length)
    }
    this.readAgain(source, ids)
    if (Option.isNone(error)) return
    for (const id of failed) this.entries.get(id)?.fail(id, error.value)
  }

  private subscribeUntil(until: Until, ids: ReadonlyArray<string>): Effect.Effect<void, E> | undefined {
    return Arr.isReadonlyArrayNonEmpty(ids)
      ? this.readBatch(this.toSubscribe, ids, (batch) => this.options.subscribe(batch, until))
      : undefined
  }

  private readonly subscribeNext = (): Effect.Effect<void, E> | undefined => {
    const [changes, ends] = Arr.partition(this.takeFrom(this.toSubscribe), (id) =>
      this.entries.get(id)?.until === "change" ? Result.succeed(id) : Result.fail(id)
    )
    const untilEnd = this.subscribeUntil("end", ends)
    const untilChange = this.subscribeUntil("change", changes)
    return untilEnd === undefined || untilChange === undefined
      ? (untilEnd ?? untilChange)
      : Effect.andThen(Effect.exit(untilEnd), untilChange)
  }

  private readonly readNext = (): Effect.Effect<void, E> | undefined => {
    const ids = this.takeFrom(this.toRead)
    return Arr.isArrayNonEmpty(ids) ? this.readBatch(this.toRead, ids, this.options.read) : undefined
  }

  /** Unsubscribing is not urgent: it waits until nothing else is to do, or a batch is full. */
  private readonly unsubscribeNext = (): Effect.Effect<void, E> | undefined => {
    const { maxBatch, unsubscribe } = this.options
    if (this.toUnsubscribe.size < maxBatch && this.toSubscribe.size + this.toRead.size > 0) return undefined
    const ids = this.takeFrom(this.toUnsubscribe)
    if (!Arr.isArrayNonEmpty(ids)) return undefined
    return Effect.onError(unsubscribe(ids), () =>
      Effect.sync(() => {
        for (const id of ids) if (!this.entries.has(id)) this.toUnsubscribe.add(id)
      })
    )
  }

  private readonly calls = [this.subscribeNext, this.readNext, this.unsubscribeNext]

  /** Makes the calls by turns, so that no kind of call holds up the others. */
  private readonly callNext: Effect.Effect<void, E> = Effect.suspend(() => {
    for (let i = 0; i < this.calls.length; i++) {
      const call = this.calls[this.nextCall]!()
      this.nextCall = (this.nextCall + 1) % this.calls.length
      if (call !== undefined) return call
    }
    this.hasWork.closeUnsafe()
    return Effect.andThen(this.hasWork.await, Effect.yieldNow)
  })

  /** The store may have missed or forgotten the subscriptions. */
  private resync(): void {
    this.created.clear()
    for (const [id, entry] of this.entries) {
      if (entry.ended) entry.mustSubscribe = true
      else this.subscribeLater(id)
    }
    this.hasWork.openUnsafe()
    for (const listener of this.hintListeners) listener(undefined)
  }

  private receiveHint(hints: ReadonlyArray<Hint>): void {
    const ids: Array<string> = []
    for (const hint of hints) {
      const id = typeof hint === "string" ? hint : hint.id
      ids.push(id)
      this.created.delete(id)
      if (typeof hint === "string" || !this.receiveEnd(hint)) this.readLater(id)
    }
    this.wakeIfDue()
    for (const listener of this.hintListeners) listener(ids)
  }

  /** Passes on the last record of a task. Returns whether it need not be read: it is of what the subscribers wait for. */
  private receiveEnd(record: TaskRecord): boolean {
    const { id } = record
    const entry = this.entries.get(id)
    if (entry === undefined) return true
    // a late hint may be of an earlier enqueue of the id, or of the time before a replay
    if (!entry.isOfSameGeneration(record)) return false
    this.toSubscribe.delete(id)
    this.toRead.delete(id)
    entry.notify(id, record)
    return true
  }

  private sweepBatch(): void {
    let count = 0
    for (const [id, entry] of this.entries) {
      if (count === this.options.maxBatch) break
      if (entry.ended || !entry.subscribed) continue
      this.readLater(id)
      count++
    }
    if (count > 0) this.hasWork.openUnsafe()
  }

  private readonly followHints: Effect.Effect<never> = Effect.suspend(() =>
    Stream.runForEach(this.options.hints, (hint) =>
      Effect.suspend(() => {
        if (hint === "resync") this.resync()
        else this.receiveHint(hint)
        return this.hintsTask.succeeded
      })
    )
  ).pipe(
    // a stream that has ended leaves a gap
    Effect.ensuring(Effect.sync(() => this.resync())),
    Effect.catchCause((cause) => this.hintsTask.failed(cause)),
    Effect.andThen(Effect.sleep(RESTART_HINTS_AFTER)),
    Effect.forever
  )

  private readonly sweep = Effect.suspend(() => {
    const { sweepInterval } = this.options
    return sweepInterval === undefined
      ? Effect.never
      : Effect.forever(
          Effect.andThen(
            Effect.sleep(sweepInterval),
            Effect.sync(() => this.sweepBatch())
          )
        )
  })

  private readonly callForever = Effect.suspend(() => {
    const { outages } = this.options
    return this.callNext.pipe(
      Effect.tapCause((cause) => outages.failed(cause)),
      Effect.retry(backoff),
      Effect.andThen(Effect.suspend(() => outages.succeeded)),
      Effect.forever
    )
  })

  readonly run = Effect.all([this.followHints, this.sweep, this.callForever], {
    concurrency: "unbounded",
    discard: true
  }).pipe((running) =>
    // a latch resumes its waiters inside `openUnsafe`, and a subscriber has to have its handle first
    Effect.andThen(Effect.andThen(this.started.await, Effect.yieldNow), running)
  )
}

/**
 * Makes the subscriptions of a process. Nothing is requested of the store before the first subscriber or listener. When
 * the scope closes, all subscribers fail, and so does every later one.
 */
export const make = Effect.fnUntraced(function* <E>(
  options: Options<E>
): Effect.fn.Return<Subscriptions<E>, never, Scope.Scope> {
  const subscriptions = new ProcessSubscriptions(options)
  yield* untraced(Effect.forkScoped(subscriptions.run))
  yield* Effect.addFinalizer(() => subscriptions.close)
  return subscriptions
})
