/** Producers, and the replay of dead letters. */
import { Effect } from "effect"
import type { NewRecord } from "../../src/BackendDriver.ts"
import type { Envelope } from "../../src/BrokerDriver.ts"
import type { Command } from "./commands.ts"
import { definitionOf, isPublishFirst, taskOf } from "./definitions.ts"
import type { Operation, ModelRunner } from "./modelRunner.ts"
import * as Tasks from "./tasks.ts"

/** Producers over one store. */
export class Producers {
  private readonly runner: ModelRunner
  /** Letters whose replay was interrupted. */
  private readonly interruptedReplays = new Set<string>()

  constructor(runner: ModelRunner) {
    this.runner = runner
  }

  enqueue(command: Command & { readonly _tag: "Enqueue" }): Operation {
    return Effect.gen({ self: this }, function* () {
      const { id, key, payload, steps } = command
      const plain = isPublishFirst(id)
      const known = Tasks.find(this.runner.tasks, id, this.runner.now)
      const task = command.otherTask && !plain && known !== undefined ? "other" : taskOf(id)
      const millis = (count: number | undefined) =>
        count === undefined ? undefined : this.runner.units(count)
      const record: NewRecord = {
        id,
        task,
        key: plain ? undefined : key,
        payloadHash: plain ? "" : payload,
        expiresMillis: millis(command.expires),
        retentionMillis: millis(definitionOf(task).retention),
        published: true
      }
      const message: Envelope = {
        id,
        task,
        queue: this.runner.setting.queues[command.queue % this.runner.setting.queues.length]!,
        priority: this.runner.broker.capabilities.priorities < 256 ? 100 : command.priority,
        delayMillis: this.runner.units(command.delay),
        generation: 0,
        expiresMillis: record.expiresMillis,
        body: this.runner.nextBody(id)
      }
      const what = [
        id,
        task === taskOf(id) ? "" : `as ${task}`,
        record.key === undefined ? "" : `key ${key}`,
        record.payloadHash === "" ? "" : `payload ${payload}`,
        command.delay === 0 ? "" : `due in ${command.delay}`,
        command.expires === undefined ? "" : `expires in ${command.expires}`,
        `message ${message.body} to ${message.queue}`
      ]
      const { fusion } = this.runner.backend
      const mode = plain
        ? "publishFirst"
        : command.mode === "fused" && fusion !== undefined
          ? "fused"
          : "reserveFirst"
      this.runner.log(`enqueue ${what.filter((word) => word !== "").join(", ")} (${mode})`)
      if (mode === "publishFirst") {
        yield* this.runner.publish(message)
        if (steps === 1) return this.runner.log("  its producer stops")
        const created = yield* this.runner.repeatable(this.runner.create(record))
        this.runner.logAnswer(created)
        this.runner.invariants.accepted.add(id)
        return
      }
      const created = yield* this.runner.repeatable(
        mode === "fused" && fusion !== undefined
          ? this.runner.enqueueFused(record, message, fusion)
          : this.runner.create({ ...record, published: false })
      )
      this.runner.logAnswer(created)
      if (created._tag === "Existing" && !created.same) return
      const effectiveId = created._tag === "Existing" ? created.id : id
      if (created._tag === "Existing" ? !created.published : mode !== "fused") {
        if (steps === 1) return this.runner.log("  its producer stops before the message is sent")
        yield* this.runner.publish({ ...message, id: effectiveId })
        if (steps === 2) return this.runner.log("  its producer stops before the mark")
        yield* this.runner.repeatable(this.runner.markPublished(effectiveId))
      }
      this.runner.invariants.accepted.add(effectiveId)
    })
  }

  duplicate(nth: number): Operation {
    return Effect.suspend(() => {
      const message = [...this.runner.messages.values()].at(
        -1 - (nth % Math.max(1, this.runner.messages.size))
      )
      if (message === undefined) return Effect.void
      const { envelope } = message
      const body = this.runner.nextBody(envelope.id)
      this.runner.log(`message ${envelope.body} is duplicated as ${body}`)
      return this.runner.publish({ ...envelope, delayMillis: 0, body })
    })
  }

  replay(nth: number, steps: number): Operation {
    return Effect.suspend(() => {
      const letters = Tasks.deadLettersOf(this.runner.tasks, undefined, this.runner.now)
      const letter = letters[nth % Math.max(1, letters.length)]
      return letter === undefined ? Effect.void : this.replayLetter(letter.id, steps)
    })
  }

  private replayLetter(letterId: string, steps: number): Operation {
    return Effect.gen({ self: this }, function* () {
      this.runner.log(`replay ${letterId}`)
      const letter = yield* this.runner.repeatable(this.runner.reopen(letterId))
      if (letter === undefined || letter.taskId === null || letter.task === null) return
      const { generation, queue, task, taskId: id } = letter
      if (steps === 1) {
        this.interruptedReplays.add(letterId)
        return this.runner.log("  interrupted before the message is sent")
      }
      const message = { id, task, queue, priority: 100, delayMillis: 0, generation: generation + 1 }
      const body = this.runner.nextBody(id)
      yield* this.runner.publish({ ...message, body })
      this.runner.log(`  message ${body} of generation ${generation + 1}`)
      if (steps === 2) {
        this.interruptedReplays.add(letterId)
        return this.runner.log("  interrupted before the letter is removed")
      }
      yield* this.runner.repeatable(this.runner.removeLetter(letterId))
      this.interruptedReplays.delete(letterId)
    })
  }

  removeLetter(nth: number): Operation {
    return Effect.suspend(() => {
      const letters = Tasks.deadLettersOf(this.runner.tasks, undefined, this.runner.now)
      const letter = letters[nth % Math.max(1, letters.length)]
      if (letter === undefined) return Effect.void
      this.runner.log(`remove letter ${letter.id}`)
      // an interrupted replay cannot be finished then
      if (this.interruptedReplays.has(letter.id) && letter.taskId !== null)
        this.runner.invariants.accepted.delete(letter.taskId)
      return this.runner.repeatable(this.runner.removeLetter(letter.id))
    })
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
      this.interruptedReplays,
      (letterId) => {
        const letter = Tasks.findDeadLetter(this.runner.tasks, letterId, this.runner.now)
        if (letter !== undefined) return this.replayLetter(letterId, 3)
        // its retention was too short
        this.runner.invariants.accepted.delete(letterId.slice(0, letterId.lastIndexOf(":")))
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
}
