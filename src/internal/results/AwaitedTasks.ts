/** The tasks of one wait: which have not ended, which are to be read, and what was read ahead of the consumer. */
import { Effect, Exit, Option } from "effect"
import type { TaskRecord } from "../../BackendDriver.ts"
import { type BackendError, isRetryable, type ReadError } from "../../StoreError.ts"
import type { TimeoutError } from "../../TimeoutError.ts"
import { terminalOf, type TerminalRecord } from "./terminalRecord.ts"
import { type WaitOptions, withTaskId } from "./waitOptions.ts"

/** What the consumer needs: each record as it arrives, or every one before any is of use. */
export type Needs = "each" | "all"

/** Tasks that are read ahead of the consumer, at first and at most. */
const FIRST_AHEAD = 8
const MAX_AHEAD = 32
/** Characters that are read ahead, of results of the size that was seen last. */
const MAX_SIZE_AHEAD = 8 * 1024 * 1024

/**
 * How many tasks may be read ahead of the consumer: few at first, more while their records are small. A task that has not
 * ended counts as small.
 */
class Lookahead {
  private limit: number
  private readonly isUnlimited: boolean

  constructor(needs: Needs) {
    // a consumer that needs all keeps them all
    this.isUnlimited = needs === "all"
    this.limit = this.isUnlimited ? Infinity : FIRST_AHEAD
  }

  /** Returns how many more may be read, beside those that are on their way or not taken. */
  roomBeside(count: number): number {
    return Math.max(0, this.limit - count)
  }

  /** Begins with few again: what was not read for some time may have ended, with large results. */
  restart(): void {
    if (!this.isUnlimited) this.limit = Math.min(this.limit, FIRST_AHEAD)
  }

  onRecord(record: TaskRecord | undefined): void {
    if (this.isUnlimited) return
    const size = (record?.exit?.length ?? 0) + (record?.progress?.length ?? 0)
    this.limit = Math.max(1, Math.min(this.limit + 1, MAX_AHEAD, Math.floor(MAX_SIZE_AHEAD / size)))
  }
}

/** The tasks of one wait. */
export class AwaitedTasks {
  /** The tasks that have not ended, with the last record that was read of each. */
  readonly open: Map<string, TaskRecord | undefined>
  /** Open tasks that are to be read. */
  readonly due = new Set<string>()
  readonly lookahead: Lookahead
  readonly options: WaitOptions
  private readonly needs: Needs
  /** Ended, and not taken by the consumer. */
  private ended: Array<TerminalRecord> = []
  /** The error of the first task that cannot be read. */
  private unreadable: ReadError | undefined
  private lastError: BackendError | undefined

  constructor(ids: ReadonlyArray<string>, needs: Needs, options: WaitOptions) {
    this.open = new Map(Array.from(ids, (id) => [id, undefined]))
    this.needs = needs
    this.options = options
    this.lookahead = new Lookahead(needs)
  }

  /** Records that the consumer has not taken. */
  get held(): number {
    return this.ended.length
  }

  /** Whether the consumer has something to take. */
  get hasNews(): boolean {
    return this.ended.length > 0 || this.isOver
  }

  private get isOver(): boolean {
    return this.open.size === 0 || (this.unreadable !== undefined && this.needs === "all")
  }

  /** Takes the records that have arrived; fails with the error of a task that cannot be read once nothing else is open. */
  take(): Effect.Effect<ReadonlyArray<TerminalRecord>, ReadError> {
    if (this.isOver && this.unreadable !== undefined && (this.ended.length === 0 || this.needs === "all")) {
      return Effect.fail(this.unreadable)
    }
    const taken = this.ended
    this.ended = []
    return Effect.succeed(taken)
  }

  onRecord(id: string, record: TaskRecord | undefined): void {
    if (!this.open.has(id)) return
    this.due.delete(id)
    this.lookahead.onRecord(record)
    const terminal = terminalOf(this.open.get(id), record)
    if (terminal === undefined) this.open.set(id, record)
    else {
      this.open.delete(id)
      this.ended.push(terminal)
    }
  }

  /** Keeps the error of a failed read, for the timeout. */
  onError(error: ReadError): void {
    if (error._tag === "BackendError") this.lastError = error
  }

  /** Gives up a task that cannot be read, so that it holds up no other. */
  onUnreadable(id: string, error: ReadError): void {
    this.due.delete(id)
    if (this.open.delete(id)) this.unreadable ??= withTaskId(id)(error)
  }

  /** Applies the answers of one read. Returns a retryable error, whose tasks stay due. */
  onAnswers(
    ids: ReadonlyArray<string>,
    answers: ReadonlyArray<Exit.Exit<TaskRecord | undefined, ReadError>>
  ): Exit.Exit<void, ReadError> {
    let result: Exit.Exit<void, ReadError> = Exit.void
    for (let i = 0; i < ids.length; i++) {
      const answer = answers[i]!
      if (Exit.isSuccess(answer)) this.onRecord(ids[i]!, answer.value)
      else {
        const error = Option.getOrUndefined(Exit.findErrorOption(answer))
        if (error !== undefined) this.onError(error)
        if (error !== undefined && !isRetryable(error)) this.onUnreadable(ids[i]!, error)
        else result = Exit.asVoid(answer)
      }
    }
    return result
  }

  setAllDue(): void {
    this.lookahead.restart()
    for (const id of this.open.keys()) this.due.add(id)
  }

  /** Returns the next tasks to read, at most that many. They stay due until they are answered. */
  nextDue(max: number): ReadonlyArray<string> {
    const ids: Array<string> = []
    for (const id of this.due) {
      if (ids.length >= max) break
      ids.push(id)
    }
    return ids
  }

  timeoutError(): TimeoutError {
    const [taskId] = this.open.keys()
    return this.options.toTimeoutError(taskId!, this.open.get(taskId!), this.lastError)
  }
}
