/** The events of a worker: what becomes of its runs, for listeners in its process. */
import { type Cause, type Duration, Effect, Queue, type Scope, Stream } from "effect"
import type { Reason } from "../../TaskFailed.ts"

/** What all events have in common. */
interface RunEvent {
  readonly taskId: string
  readonly taskName: string
  readonly queue: string
  /** Starts of the task's generation so far, without those that were released. The first one is 1; before that it is 0. */
  readonly attempt: number
}

/** What events of the end of a run have in common. */
interface RunEndEvent extends RunEvent {
  /** How long the run took: its handler, and the codecs of its payload and result. Zero where no handler was run. */
  readonly duration: Duration.Duration
}

/**
 * What became of a run of a worker.
 *
 * **Details**
 *
 * - `Started`: the run has begun. Each run has one further event.
 * - `Succeeded`: the task has ended with a success, which is stored.
 * - `Failed`: the task has ended with a failure, which is stored; `reason` is `Cancelled` for one that was cancelled while it
 *   ran. A task that no handler can run, with an unknown name or an undecodable message, has this event alone, and so has one
 *   that ends when it is to be started: since its workers were lost, it has expired, or it was cancelled.
 * - `Retried`: the attempt failed, and the task runs again after `delay`.
 * - `Released`: the task is back in the queue, and nothing is counted, since its worker stops. Without records also an
 *   at-most-once task whose message could not be acked before its handler was started.
 * - `Lost`: the run lost its lease or was superseded; the task runs again, here or elsewhere.
 *
 * `cause` is what made the run fail: the handler's errors and defects, with their stacks. It is empty where the task was
 * cancelled, or its handler asked for a retry without an error.
 *
 * @category models
 * @since 0.1.0
 */
export type WorkerEvent =
  | (RunEvent & { readonly _tag: "Started" })
  | (RunEndEvent & { readonly _tag: "Succeeded" })
  | (RunEndEvent & {
      readonly _tag: "Failed"
      readonly reason: Reason<unknown>["_tag"]
      readonly cause: Cause.Cause<unknown>
    })
  | (RunEndEvent & {
      readonly _tag: "Retried"
      readonly delay: Duration.Duration
      readonly cause: Cause.Cause<unknown>
    })
  | (RunEndEvent & { readonly _tag: "Released" })
  | (RunEndEvent & { readonly _tag: "Lost" })

/** Events that a listener may be behind; older ones are dropped. */
export const MAX_BEHIND = 4096

/** Passes events on to listeners. Each has a buffer of its own, so that none holds up the worker or another listener. */
export class WorkerEvents {
  private readonly listeners = new Set<Queue.Queue<WorkerEvent, Cause.Done>>()
  private isEnded = false

  /** Whether anybody listens. Without listeners no event is made. */
  get hasListeners(): boolean {
    return this.listeners.size > 0
  }

  emit(event: WorkerEvent): void {
    for (const listener of this.listeners) Queue.offerUnsafe(listener, event)
  }

  /** Ends all streams after the events so far. */
  end(): void {
    this.isEnded = true
    for (const listener of this.listeners) Queue.endUnsafe(listener)
    this.listeners.clear()
  }

  private readonly listen: Effect.Effect<Queue.Dequeue<WorkerEvent, Cause.Done>, never, Scope.Scope> =
    Effect.gen({ self: this }, function* () {
      const listener = yield* Queue.sliding<WorkerEvent, Cause.Done>(MAX_BEHIND)
      if (this.isEnded) {
        Queue.endUnsafe(listener)
        return listener
      }
      yield* Effect.acquireRelease(
        Effect.sync(() => this.listeners.add(listener)),
        () => Effect.sync(() => this.listeners.delete(listener))
      )
      return listener
    })

  readonly stream: Stream.Stream<WorkerEvent> = Stream.unwrap(Effect.map(this.listen, Stream.fromQueue))
}
