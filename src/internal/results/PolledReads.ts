/** Reads the tasks of one wait at an interval, for backends without hints. */
import { type Clock, Duration, Effect, type Schedule } from "effect"
import { isRetryable, type ReadError } from "../../StoreError.ts"
import type { BackendService } from "../driver/BackendService.ts"
import { monotonicMillis } from "../millis.ts"
import type { AwaitedTasks } from "./AwaitedTasks.ts"
import { DEFAULT_POLL_INTERVAL } from "./waitOptions.ts"

/** Reads all open tasks in rounds. */
export class PolledReads {
  private readonly tasks: AwaitedTasks
  private readonly backend: BackendService
  private readonly retry: Schedule.Schedule<unknown, ReadError>
  private readonly interval: Duration.Duration
  private readonly clock: Clock.Clock
  /** When the next round of reads begins, in milliseconds of the monotonic clock. */
  private nextRoundAt = -Infinity

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
    const ids = this.tasks.nextDue(lookahead.roomBeside(0))
    return Effect.flatMap(this.backend.read.many(ids), (answers) => {
      const result = this.tasks.onAnswers(ids, answers)
      if (due.size === 0) {
        this.nextRoundAt = monotonicMillis(this.clock) + Duration.toMillis(this.interval)
      }
      return result
    })
  })

  /** Waits until there is news for the consumer. */
  readonly awaitNews: Effect.Effect<void, ReadError> = Effect.suspend(() => {
    if (this.tasks.hasNews) return Effect.void
    if (this.tasks.due.size > 0) {
      return Effect.andThen(
        Effect.retry(this.readSome, { schedule: this.retry, while: isRetryable }),
        this.awaitNews
      )
    }
    const wait = Math.max(0, this.nextRoundAt - monotonicMillis(this.clock))
    return Effect.andThen(
      wait === 0 ? Effect.void : Effect.sleep(wait),
      Effect.suspend(() => {
        this.tasks.setAllDue()
        return this.awaitNews
      })
    )
  })

  /** Nothing is read while nobody waits. */
  end(): void {}
}
