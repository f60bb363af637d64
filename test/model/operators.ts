/** What operators do: they replay, remove and park dead letters, and purge queues. Each may stop half-way. */
import { Effect } from "effect"
import type { PurgedMessage } from "../../src/BrokerDriver.ts"
import type { ModelRunner } from "./modelRunner.ts"
import type { Operation } from "./modelState.ts"
import * as Tasks from "./tasks.ts"

/** Operators of one store. */
export class Operators {
  private readonly runner: ModelRunner
  /** Letters whose replay stopped after the task was opened. */
  private readonly interruptedReplays = new Set<string>()
  /** What each purge removed. */
  private readonly purges: Array<ReadonlyArray<PurgedMessage>> = []

  constructor(runner: ModelRunner) {
    this.runner = runner
  }

  private letterAt(nth: number): Tasks.StoredDeadLetter | undefined {
    const letters = Tasks.deadLettersOf(this.runner.tasks, undefined, this.runner.now)
    return letters[nth % Math.max(1, letters.length)]
  }

  replay(nth: number, steps: number): Operation {
    return Effect.suspend(() => {
      const letter = this.letterAt(nth)
      return letter === undefined ? Effect.void : this.replayLetter(letter.id, steps)
    })
  }

  private replayLetter(letterId: string, steps: number): Operation {
    return Effect.gen({ self: this }, function* () {
      const { runner } = this
      runner.log(`replay ${letterId}`)
      const reopened = yield* runner.repeatable(runner.reopen(letterId))
      if (reopened === undefined) return
      const { body: sent, generation, incarnation, queue, task, taskId: id } = reopened.letter
      if (id === null || task === null) return
      if (!reopened.replayable) {
        this.interruptedReplays.delete(letterId)
        return runner.logAnswer("refused")
      }
      if (steps === 1) {
        this.interruptedReplays.add(letterId)
        return runner.log("  interrupted before the message is sent")
      }
      const body = runner.nextBody(id)
      const message = { id, task, queue, priority: 100, delayMillis: 0, incarnation }
      yield* runner.publish({ ...message, generation: generation + 1, body }, runner.contentOf(sent))
      runner.log(`  message ${body} of generation ${generation + 1}`)
      this.interruptedReplays.delete(letterId)
      if (steps === 2) return runner.log("  interrupted before the letter is removed")
      yield* runner.repeatable(runner.removeLetter(letterId))
    })
  }

  removeLetter(nth: number): Operation {
    return Effect.suspend(() => {
      const letter = this.letterAt(nth)
      if (letter === undefined) return Effect.void
      this.runner.log(`remove letter ${letter.id}`)
      this.cutOff(letter)
      return this.runner.repeatable(this.runner.removeLetter(letter.id))
    })
  }

  /** Notes that a replay, if it was interrupted, cannot be finished, since its letter is gone. */
  private cutOff({ body, id }: Tasks.StoredDeadLetter): void {
    if (this.interruptedReplays.delete(id)) {
      this.runner.promises.replayCutOff(this.runner.contentOf(body).enqueue)
    }
  }

  park(deadLetterId: string, retention: number | undefined): Operation {
    const retentionMillis = retention === undefined ? undefined : this.runner.units(retention)
    const [queue] = this.runner.setting.queues
    const message = { queue, reason: "PayloadInvalid", exit: "{}", body: "no message" }
    return this.runner.park({ ...message, deadLetterId, retentionMillis })
  }

  /** Repeats interrupted replays. */
  readonly finishReplays: Operation = Effect.suspend(() =>
    Effect.forEach(
      [...this.interruptedReplays],
      (letterId) => {
        if (Tasks.findDeadLetter(this.runner.tasks, letterId, this.runner.now) !== undefined) {
          return this.replayLetter(letterId, 3)
        }
        // its retention was too short
        const outlived = this.runner.tasks.letters.get(letterId)
        if (outlived !== undefined) this.cutOff(outlived)
        return Effect.void
      },
      { discard: true }
    )
  )

  readonly removeLetters: Operation = Effect.suspend(() =>
    Effect.forEach([...this.runner.tasks.letters.keys()], (id) => this.runner.removeLetter(id), {
      discard: true
    })
  )

  /** Removes the messages of a queue, and ends their tasks unless the operator stops before. */
  purge(nth: number, withdraws: boolean): Operation {
    return Effect.gen({ self: this }, function* () {
      const { queues } = this.runner.setting
      const queue = queues[nth % queues.length]!
      this.runner.log(`purge ${queue}`)
      const purged = yield* this.runner.purge(queue)
      if (purged.length === 0) return
      this.purges.push(purged)
      if (withdraws) yield* this.withdrawAll(purged)
    })
  }

  private withdrawAll(purged: ReadonlyArray<PurgedMessage>): Operation {
    return Effect.suspend(() => {
      this.runner.log(`withdraw ${purged.map(({ id }) => id).join(", ")}`)
      return this.runner.repeatable(
        Effect.forEach(purged, (message) => this.runner.withdraw(message), { discard: true })
      )
    })
  }

  /** Ends the tasks of an earlier purge, possibly once more. */
  withdraw(nth: number): Operation {
    return Effect.suspend(() => {
      const purged = this.purges.at(-1 - (nth % Math.max(1, this.purges.length)))
      return purged === undefined ? Effect.void : this.withdrawAll(purged)
    })
  }

  /** Ends the tasks of all purges. */
  readonly finishPurges: Operation = Effect.suspend(() =>
    Effect.forEach(this.purges, (purged) => this.withdrawAll(purged), { discard: true })
  )
}
