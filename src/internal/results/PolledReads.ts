/** Reads the tasks of one wait at an interval, for backends without hints. */
import { type Clock, Duration, Effect, type Schedule } from "effect"
import { isRetryable, type ReadError } from "../../StoreError.ts"
import type { BackendService } from "../driver/BackendService.ts"
import { maxBatch } from "../driver/driverCalls.ts"
import { monotonicMillis } from "../millis.ts"
import type { AwaitedTasks } from "./AwaitedTasks.ts"
import { DEFAULT_POLL_INTERVAL } from "./waitOptions.ts"

/** The longest interval, in milliseconds, within which few large results are expected of many tasks. */
const SHORT_INTERVAL = 1000

/** Reads all open tasks in rounds. */
export class PolledReads {
  private readonly tasks: AwaitedTasks
  private readonly backend: BackendService
  private readonly retry: Schedule.Schedule<unknown, ReadError>
  private readonly interval: Duration.Duration
  private readonly clock: Clock.Clock
  /** When the next round of reads begins, in milliseconds of the monotonic clock. */
  private nextRoundAt = -Infinity
  /**
   * The last round found no end, and the consumer has waited since. Reads are larger then, so that thousands of tasks are
   * polled in few calls, unless the interval is long: much may have ended meanwhile.
   */
  private isQuiet = false

  constructor(
    tasks: AwaitedTasks,
    backend: BackendService,
    retry: Schedule.Schedule<unknown, ReadError>,
    clock: Clock.Clock
  ) {
    this.tasks = tasks
    this.backend = backend
    this.retry = retry
    this.interval = tasks.options.pollInterval ?? DEFAULT_POLL_INTERVAL
    this.clock = clock
  }

  private readonly readSome = Effect.suspend(() => {
    const { due, lookahead } = this.tasks
    const room = lookahead.roomBeside(0)
    const ids = this.tasks.nextDue(this.isQuiet ? Math.max(room, maxBatch) : room)
    return Effect.flatMap(this.backend.read.many(ids), (answers) => {
      const result = this.tasks.onAnswers(ids, answers)
      if (due.size === 0) {
        const interval = Duration.toMillis(this.interval)
        this.isQuiet = interval <= SHORT_INTERVAL && !this.tasks.hasNews
        this.nextRoundAt = monotonicMillis(this.clock) + interval
      }
      return result
    })
  })

  private readonly readUntilNews: Effect.Effect<void, ReadError> = Effect.suspend(() => {
    if (this.tasks.hasNews) return Effect.void
    if (this.tasks.due.size > 0) {
      return Effect.andThen(
        Effect.retry(this.readSome, { schedule: this.retry, while: isRetryable }),
        this.readUntilNews
      )
    }
    const wait = Math.max(0, this.nextRoundAt - monotonicMillis(this.clock))
    return Effect.andThen(
      wait === 0 ? Effect.void : Effect.sleep(wait),
      Effect.suspend(() => {
        this.tasks.setAllDue()
        return this.readUntilNews
      })
    )
  })

  /** Waits until there is news for the consumer. */
  readonly awaitNews: Effect.Effect<void, ReadError> = Effect.suspend(() => {
    this.isQuiet = false
    return this.readUntilNews
  })

  /** Nothing is read while nobody waits. */
  end(): void {}
}
