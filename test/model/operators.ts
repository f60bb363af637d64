/** What operators do: they replay, remove and park dead letters, and purge queues. Each may stop half-way. */
import { Effect } from "effect"
import type { Envelope, PurgedMessage } from "../../src/BrokerDriver.ts"
import { RESERVED_UNITS } from "./definitions.ts"
import type { ModelRunner } from "./modelRunner.ts"
import type { Content, Operation } from "./modelState.ts"
import * as Tasks from "./tasks.ts"

/** A replay that its operator has begun. */
interface Replaying {
  readonly letterId: string
  readonly message: (Envelope & { readonly incarnation: string; readonly generation: number }) | undefined
  readonly content: Content | undefined
  /** When the operator asked for the reservation. */
  readonly since: number
  /** The next step. */
  readonly next: "open" | "publish" | "mark" | "remove"
}

/** Operators of one store. */
export class Operators {
  private readonly runner: ModelRunner
  /** Replays whose operators stand still, and may have died. */
  private readonly stopped: Array<Replaying> = []
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
      if (letter === undefined) return Effect.void
      this.runner.log(`replay ${letter.id}`)
      const { now } = this.runner
      const begun = { letterId: letter.id, message: undefined, content: undefined, since: now }
      return this.takeSteps({ ...begun, next: "open" }, steps)
    })
  }

  /** Takes at most that many steps, after which the operator stops. */
  private takeSteps(replaying: Replaying, steps: number): Operation {
    return Effect.gen({ self: this }, function* () {
      let current: Replaying | undefined = replaying
      for (let left = steps; current !== undefined; left--) {
        if (left === 0) {
          this.stopped.push(current)
          return this.runner.log(`  its operator stops; the next step is to ${current.next}`)
        }
        current = yield* this.takeStep(current)
      }
    })
  }

  /** Takes one step and returns what is left; `undefined`: nothing is. */
  private takeStep(replaying: Replaying): Operation<Replaying | undefined> {
    return Effect.gen({ self: this }, function* () {
      const { runner } = this
      const { content, letterId, message, next, since } = replaying
      if (next === "remove") {
        yield* runner.repeatable(runner.removeLetter(letterId))
        return undefined
      }
      if (message === undefined || content === undefined || next === "open") return yield* this.open(letterId)
      const { generation, id, incarnation } = message
      if (next === "publish") {
        yield* runner.publish(message, content)
        runner.log(`  message ${message.body} of generation ${generation}`)
        return { ...replaying, next: "mark" }
      }
      const marked = yield* runner.repeatable(runner.markPublished({ id, incarnation, generation }))
      if (!marked && runner.now - since > runner.units(RESERVED_UNITS) / 2) {
        runner.log(`  the reservation of ${id} is gone; its operator starts over`)
        return { ...replaying, next: "open" }
      }
      // a record that a late producer created again runs in its own generation, and the message is dropped after its end (S2)
      const current = Tasks.find(runner.tasks, id, runner.now)?.generation ?? 0
      runner.promises.accept(content.enqueue, Math.min(generation, current))
      return { ...replaying, next: "remove" }
    })
  }

  /** Opens the task of a dead letter as a reservation. */
  private open(letterId: string): Operation<Replaying | undefined> {
    return Effect.gen({ self: this }, function* () {
      const { runner } = this
      const reopened = yield* runner.repeatable(runner.reopen(letterId, runner.units(RESERVED_UNITS)))
      if (reopened === undefined) return undefined
      const { body: sent, generation, incarnation, queue, task, taskId: id } = reopened.letter
      if (id === null || task === null) return undefined
      if (!reopened.replayable) {
        runner.logAnswer("refused")
        return undefined
      }
      const body = runner.nextBody(id)
      const message = { id, task, queue, priority: 100, delayMillis: 0, incarnation, body }
      return {
        letterId,
        message: { ...message, generation: generation + 1 },
        content: runner.contentOf(sent),
        since: runner.now,
        next: "publish"
      }
    })
  }

  /** Lets an operator that stopped take more steps of its replay. */
  continueStopped(nth: number, steps: number): Operation {
    return Effect.suspend(() => {
      const [replaying] = this.stopped.splice(-1 - (nth % Math.max(1, this.stopped.length)), 1)
      if (replaying === undefined) return Effect.void
      this.runner.log(`the replay of ${replaying.letterId} continues`)
      return this.takeSteps(replaying, steps)
    })
  }

  removeLetter(nth: number): Operation {
    return Effect.suspend(() => {
      const letter = this.letterAt(nth)
      if (letter === undefined) return Effect.void
      this.runner.log(`remove letter ${letter.id}`)
      return this.runner.repeatable(this.runner.removeLetter(letter.id))
    })
  }

  park(deadLetterId: string, retention: number | undefined): Operation {
    const retentionMillis = retention === undefined ? undefined : this.runner.units(retention)
    const [queue] = this.runner.setting.queues
    const message = { queue, reason: "PayloadInvalid", exit: "{}", body: "no message" }
    return this.runner.park({ ...message, deadLetterId, retentionMillis })
  }

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
