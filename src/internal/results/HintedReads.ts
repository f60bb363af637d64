/** Reads the tasks of one wait when hints come, through the subscriptions of the process. */
import { type Clock, Duration, Effect, type Schedule } from "effect"
import type { TaskRecord } from "../../BackendDriver.ts"
import { isRetryable, type ReadError } from "../../StoreError.ts"
import { backoff } from "../backoff.ts"
import type { Subscriber, Subscription, Subscriptions } from "../driver/Subscriptions.ts"
import { monotonicMillis } from "../millis.ts"
import type { AwaitedTasks } from "./AwaitedTasks.ts"

/** Subscribes to all open tasks, and accepts reads of as many as may be read ahead, while the consumer waits. */
export class HintedReads implements Subscriber<ReadError> {
  readonly waitsFor = "end"
  private readonly tasks: AwaitedTasks
  private readonly subscriptions: Subscriptions<ReadError>
  private readonly retry: Schedule.Schedule<unknown, ReadError>
  private readonly clock: Clock.Clock
  private subscription: Subscription | undefined
  /** Tasks whose reads were accepted and have not been answered. */
  private readonly asked = new Set<string>()
  /** Resumes the consumer; `undefined`: it does not wait. */
  private resume: ((answer: Effect.Effect<void, ReadError>) => void) | undefined
  /** When all open tasks are read beside the hints, in milliseconds of the monotonic clock. */
  private nextPollAt: number | undefined

  constructor(
    tasks: AwaitedTasks,
    subscriptions: Subscriptions<ReadError>,
    retry: Schedule.Schedule<unknown, ReadError>,
    clock: Clock.Clock
  ) {
    this.tasks = tasks
    this.subscriptions = subscriptions
    this.retry = retry
    this.clock = clock
  }

  accepts(id: string): boolean {
    if (!this.tasks.open.has(id)) return false
    if (this.asked.has(id)) return true
    if (this.asked.size === 0 && this.tasks.due.size === 0) this.tasks.lookahead.restart()
    if (this.resume === undefined || this.room === 0) {
      this.tasks.due.add(id)
      return false
    }
    this.tasks.due.delete(id)
    this.asked.add(id)
    return true
  }

  onRecord(id: string, record: TaskRecord | undefined): void {
    const wasAsked = this.asked.delete(id)
    if (!wasAsked && this.room === 0) {
      if (this.tasks.open.has(id)) this.tasks.due.add(id)
      return
    }
    this.tasks.onRecord(id, record)
    this.proceed()
  }

  onError(error: ReadError, id: string): void {
    this.tasks.onError(error)
    if (!isRetryable(error)) {
      this.asked.delete(id)
      this.tasks.onUnreadable(id, error)
      this.subscription?.drop(id)
      this.proceed()
    } else if (this.retry !== backoff) {
      // a schedule that the caller provides decides how often a failed read is retried
      const { resume } = this
      this.end()
      resume?.(Effect.fail(error))
    }
  }

  end(): void {
    this.resume = undefined
    this.asked.clear()
    this.subscription?.end()
    this.subscription = undefined
  }

  private get room(): number {
    return this.tasks.lookahead.roomBeside(this.asked.size + this.tasks.held)
  }

  /** Resumes the consumer, or reads more for it. */
  private proceed(): void {
    const { resume } = this
    if (resume === undefined) return
    if (!this.tasks.hasNews) return this.readMore()
    this.resume = undefined
    resume(Effect.void)
  }

  private readMore(): void {
    const ids = this.tasks.nextDue(this.room)
    if (ids.length === 0) return
    for (const id of ids) {
      this.tasks.due.delete(id)
      this.asked.add(id)
    }
    this.subscription?.read(ids)
  }

  private readonly awaitHints: Effect.Effect<void, ReadError> = Effect.callback((resume) => {
    this.resume = resume
    this.subscription ??= this.subscriptions.subscribe([...this.tasks.open.keys()], this)
    this.proceed()
    return Effect.sync(() => {
      this.resume = undefined
    })
  })

  /** Reads all open tasks at the interval that the caller sets. */
  private pollEvery(interval: Duration.Duration): Effect.Effect<never> {
    const millis = Duration.toMillis(interval)
    return Effect.forever(
      Effect.suspend(() => {
        this.nextPollAt ??= monotonicMillis(this.clock) + millis
        return Effect.map(Effect.sleep(Math.max(0, this.nextPollAt - monotonicMillis(this.clock))), () => {
          this.nextPollAt = monotonicMillis(this.clock) + millis
          this.tasks.setAllDue()
          this.readMore()
        })
      })
    )
  }

  /** Waits until there is news for the consumer. */
  get awaitNews(): Effect.Effect<void, ReadError> {
    const { pollInterval } = this.tasks.options
    const hinted =
      this.retry === backoff
        ? this.awaitHints
        : Effect.retry(this.awaitHints, { schedule: this.retry, while: isRetryable })
    const news = pollInterval === undefined ? hinted : Effect.raceFirst(hinted, this.pollEvery(pollInterval))
    // the rest of a batch arrives in this turn, and the consumer's code runs after it
    return Effect.andThen(news, Effect.yieldNow)
  }
}
