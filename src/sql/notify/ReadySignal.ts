/**
 * Signals workers when a claim is worthwhile: at once when a message comes, in this process or another one, and when a
 * delay or a lease is over.
 */
import { Effect, Latch, type Scope, Stream } from "effect"
import type { Batch } from "../../BrokerDriver.ts"
import type { QueueStatus } from "../broker/queueStatus.ts"
import type { StoreError } from "../Database.ts"
import type { ClaimOfQueues, WorkerNotifier } from "./WorkerNotifier.ts"

/** The signal of one store. */
export interface ReadySignal {
  /** Notifies workers of messages in these queues, the first of which is due after that time. */
  readonly notify: (queues: ReadonlySet<string>, firstMillis: number) => void
  /** Wakes the workers of this process alone, as more is left in these queues. */
  readonly wakeHere: (queues: ReadonlySet<string>) => void
  /** Takes note of a claim that was answered. */
  readonly onClaim: (claim: ClaimOfQueues) => void
  /** Wakes workers for the messages that a claim of the queues leaves. */
  readonly wakeAgain: (queues: Batch<string>) => void
  /** Emits when a claim of the queues is worthwhile. */
  readonly ready: (queues: Batch<string>) => Stream.Stream<void, StoreError>
}

/** The shortest pause before the status is read because a time has come. */
const MIN_CHECK_MILLIS = 1
/** The pause after a signal: messages that were not claimed are signalled again. */
const REPEAT_MILLIS = 1000
/** The longest pause before the status is read: the store's clock may be set forward. */
const MAX_CHECK_MILLIS = 60_000

/** Reads the status of queues. */
type ReadStatus = (queues: Batch<string>) => Effect.Effect<QueueStatus, StoreError>

/** One stream of signals: woken by messages, by other processes and by its timer. */
class ReadyStream {
  readonly queues: ReadonlySet<string>
  private readonly names: Batch<string>
  private readonly readStatus: ReadStatus
  private readonly woken = Latch.makeUnsafe(true)
  /** Messages came, so that the status need not be read. True at first. */
  private certain = true
  private timer: NodeJS.Timeout | undefined
  private timerAt = Infinity

  constructor(names: Batch<string>, readStatus: ReadStatus) {
    this.queues = new Set(names)
    this.names = names
    this.readStatus = readStatus
  }

  /** Wakes the stream; `certain`: messages came. */
  wake(certain: boolean): void {
    if (certain) this.certain = true
    this.woken.openUnsafe()
  }

  /** Wakes the stream when a message is due. */
  wakeWhenDue(firstMillis: number): void {
    if (firstMillis > 0) this.wakeAfter(Math.min(firstMillis, MAX_CHECK_MILLIS))
    else this.wake(true)
  }

  stop(): void {
    clearTimeout(this.timer)
  }

  /** Waits until a claim is worthwhile. */
  readonly next: Effect.Effect<void, StoreError> = Effect.asVoid(
    Effect.repeat(
      Effect.andThen(
        Effect.suspend(() => this.woken.await),
        Effect.suspend(() => this.isReady())
      ),
      { until: (ready) => ready }
    )
  )

  private isReady(): Effect.Effect<boolean, StoreError> {
    // closed before the status is read, so that no wake is lost
    this.woken.closeUnsafe()
    if (this.certain) {
      this.certain = false
      this.wakeAfter(REPEAT_MILLIS)
      return Effect.succeed(true)
    }
    return Effect.map(this.readStatus(this.names), ({ due, nextMillis, ready }) => {
      if (nextMillis !== undefined) {
        this.wakeAfter(Math.min(Math.max(nextMillis, MIN_CHECK_MILLIS), MAX_CHECK_MILLIS))
      }
      if (ready || due) this.wakeAfter(REPEAT_MILLIS)
      return ready || due
    })
  }

  /** Wakes the stream after that time, unless the timer does so sooner. */
  private wakeAfter(millis: number): void {
    const at = performance.now() + millis
    if (this.timer !== undefined && this.timerAt <= at) return
    clearTimeout(this.timer)
    this.timerAt = at
    this.timer = setTimeout(() => {
      this.timer = undefined
      this.woken.openUnsafe()
    }, millis)
  }
}

/** Makes the signal over one database. */
export const make = (readStatus: ReadStatus, workerNotifier: WorkerNotifier): ReadySignal => {
  const streams = new Set<ReadyStream>()

  const open = (queues: Batch<string>): Effect.Effect<ReadyStream, never, Scope.Scope> =>
    Effect.gen(function* () {
      const stream = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const opened = new ReadyStream(queues, readStatus)
          streams.add(opened)
          return opened
        }),
        (opened) =>
          Effect.sync(() => {
            streams.delete(opened)
            opened.stop()
          })
      )
      yield* workerNotifier.subscribe(queues, (certain) => stream.wake(certain))
      return stream
    })

  const wakeHere = (queues: ReadonlySet<string>, firstMillis: number): void => {
    for (const stream of streams) {
      for (const queue of queues) {
        if (!stream.queues.has(queue)) continue
        stream.wakeWhenDue(firstMillis)
        break
      }
    }
  }

  const notify: ReadySignal["notify"] = (queues, firstMillis) => {
    workerNotifier.notify(queues)
    wakeHere(queues, firstMillis)
  }
  return {
    notify,
    wakeAgain: (queues) => {
      workerNotifier.onLeft?.(queues)
      notify(new Set(queues), 0)
    },
    wakeHere: (queues) => wakeHere(queues, 0),
    onClaim: (claim) => workerNotifier.onClaim?.(claim),
    ready: (queues) =>
      Stream.unwrap(Effect.map(open(queues), (stream) => Stream.fromEffectRepeat(stream.next)))
  }
}
